"""Rows that are not trained on: they come with the others and are kept aside.

A role has one input, so the planner unites both tables and marks the rows; here they part
again, before anything counts, groups or spools the rows to train on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import pyarrow as pa
import pyarrow.compute as pc

from headrace._counts import require_count
from headrace.errors import ConfigError, UsageError
from headrace.exchange import (
    Batch,
    End,
    Feed,
    Item,
    Rebatcher,
    Spool,
    SpoolContent,
    SpoolWriter,
    StateFile,
)

__all__ = ["HELD_OUT", "HeldOutFeed", "HeldOutPlace"]

HELD_OUT = "headrace__held_out"
"""Name of the BOOLEAN column that says which rows are held out."""

_FILE_ROWS = 16_384
_WHY = (
    "Held-out rows are kept there: they must fit on the TaskManager's disk (Flink's "
    "`io.tmp.dirs`); hold out fewer, or make room."
)


@dataclass(frozen=True, slots=True)
class HeldOutPlace:
    """The held-out rows so far, for a Flink checkpoint.

    Attributes:
        content: The rows.
        rows: How many.
        is_complete: Whether the input has ended.
    """

    content: SpoolContent
    rows: int
    is_complete: bool


class HeldOutFeed:
    """A `Feed` of the rows to train on, which keeps the held-out ones in a file.

    Everything else goes through as it is. Thread model: as the feed.

    Args:
        feed: Rows with the column `HELD_OUT`, which is not handed on.
        directory: Where the file is made; it has no name once the input has ended.

    Raises:
        ConfigError: The rows have no such column.
        ExchangeError: The file cannot be made.
    """

    def __init__(self, feed: Feed, directory: Path) -> None:
        schema = feed.input_schema
        if schema is None or HELD_OUT not in schema.names:
            msg = f"Rows with held-out ones among them have the column {HELD_OUT!r}"
            raise ConfigError(msg)
        self._feed = feed
        self._place = schema.get_field_index(HELD_OUT)
        self._schema = schema.remove(self._place)
        self.rows = 0
        self._spool: Spool | None = None
        directory.mkdir(exist_ok=True)
        self._writer: SpoolWriter | None = SpoolWriter(
            directory, self._schema, rows=_FILE_ROWS, why=_WHY
        )

    @property
    def input_schema(self) -> pa.Schema | None:
        """Columns that come in, without the mark."""
        return self._schema

    @property
    def output_schema(self) -> pa.Schema | None:
        """Columns that go out."""
        return self._feed.output_schema

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:
        """Take the next item that is no held-out row; see `Feed.receive`."""
        deadline = None if timeout_s is None else monotonic() + timeout_s
        while True:
            item = self._feed.receive(timeout_s=timeout_s, says_idle=says_idle)
            match item:
                case Batch():
                    batch = self._keep_aside(item)
                    if batch is not None:
                        return batch
                case End():
                    self._finish()
                    return item
                case _:
                    return item
            if deadline is not None:
                timeout_s = deadline - monotonic()
                if timeout_s <= 0:
                    return None

    @property
    def place(self) -> HeldOutPlace:
        """What `go_on_with` takes; refers to the file."""
        kept = self._writer or self._spool
        assert kept is not None
        return HeldOutPlace(kept.content(), self.rows, is_complete=self._writer is None)

    def go_on_with(self, place: HeldOutPlace) -> None:
        """Take up the held-out rows of another process, before anything is received.

        Raises:
            ExchangeError: The disk is too small for them.
            ProtocolError: They have other columns.
        """
        assert self._writer is not None
        self._writer.refill(place.content)
        self.rows = place.rows
        if place.is_complete:
            self._finish()

    def held_out(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Iterate over the held-out rows, as often as is wished; the last batch may be short.

        Raises:
            UsageError: The input has not ended, so more may come.
        """
        rows = require_count("rows", rows)
        if self._spool is None:
            msg = (
                "Held-out rows are complete when the first pass over the input has ended: ask "
                "for them between two passes of ctx.passes, or after the last"
            )
            raise UsageError(msg)
        return _cut(self._spool, rows)

    def expect_state(self, size_bytes: int) -> None:
        """See `Feed.expect_state`."""
        self._feed.expect_state(size_bytes)

    def take_state(self, size_bytes: int) -> StateFile:
        """See `Feed.take_state`."""
        return self._feed.take_state(size_bytes)

    def is_aborted(self, checkpoint_id: int) -> bool:
        """See `Feed.is_aborted`."""
        return self._feed.is_aborted(checkpoint_id)

    def watch(self, *, timeout_s: float) -> None:
        """See `Feed.watch`."""
        self._feed.watch(timeout_s=timeout_s)

    def acknowledge(self, checkpoint_id: int, state: StateFile | None = None) -> None:
        """See `Feed.acknowledge`."""
        self._feed.acknowledge(checkpoint_id, state)

    def on_complete(self, call: Callable[[int], object]) -> None:
        """See `Feed.on_complete`."""
        self._feed.on_complete(call)

    def let_go(self, state: StateFile) -> None:
        """See `Feed.let_go`."""
        self._feed.let_go(state)

    def decline(self, checkpoint_id: int) -> None:
        """See `Feed.decline`."""
        self._feed.decline(checkpoint_id)

    def acknowledge_every(self, state: StateFile | None = None) -> None:
        """See `Feed.acknowledge_every`."""
        self._feed.acknowledge_every(state)

    def send(self, batch: pa.RecordBatch, timestamps_ms: pa.Array | None = None) -> None:
        """See `Feed.send`."""
        self._feed.send(batch, timestamps_ms)

    def send_watermark(self, timestamp_ms: int) -> None:
        """See `Feed.send_watermark`."""
        self._feed.send_watermark(timestamp_ms)

    def send_end(self, state: StateFile | None = None) -> None:
        """See `Feed.send_end`."""
        self._feed.send_end(state)

    def close(self) -> None:
        """Let go of everything, the held-out rows too. Idempotent."""
        try:
            if self._writer is not None:
                self._writer.close()
                self._writer = None
            if self._spool is not None:
                self._spool.close()
        finally:
            self._feed.close()

    def _keep_aside(self, batch: Batch) -> Batch | None:
        """Write the held-out rows away; return the others, None if there are none."""
        assert self._writer is not None
        mark = batch.columns.column(self._place)
        unmarked = batch.columns.remove_column(self._place)
        stamps = batch.timestamps_ms
        held = mark.true_count
        if not held:
            return Batch(unmarked, stamps)
        self.rows += held
        # A copy: held-out rows must not hold memory of the queue until the file is written.
        self._writer.write(_chosen(Batch(unmarked, stamps), mark))
        if held == len(mark):
            return None
        return _chosen(Batch(unmarked, stamps), pc.invert(mark))

    def _finish(self) -> None:
        if self._writer is not None:
            self._spool = self._writer.finish()
            self._writer = None


def _chosen(batch: Batch, mask: pa.BooleanArray) -> Batch:
    stamps = batch.timestamps_ms
    return Batch(batch.columns.filter(mask), None if stamps is None else stamps.filter(mask))


def _cut(spool: Spool, rows: int) -> Iterator[pa.RecordBatch]:
    rebatcher = Rebatcher(rows)
    for batch in spool.read():
        rebatcher.push(batch.columns)
        while (full := rebatcher.take()) is not None:
            yield full
    rest = rebatcher.flush()
    if rest is not None:
        yield rest
