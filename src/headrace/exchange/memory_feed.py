"""A feed without Flink: rows from a table, or any items, and what was sent kept for a look."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator

import pyarrow as pa

from headrace.errors import UsageError
from headrace.exchange.conform import conform
from headrace.exchange.items import Batch, End, Item, Watermark
from headrace.exchange.state_files import StateFile, StateFiles

__all__ = ["MemoryFeed"]


class MemoryFeed:
    """A `Feed` over rows in memory; `headrace.testing` runs entry functions with it.

    Thread model: one thread at a time. `receive` never waits: when the items are used up before
    an `End`, it returns None at once, like a stream that is idle.

    Attributes:
        sent: Batches that were sent, made to fit the output schema, in order.
        sent_timestamps_ms: Their timestamps.
        watermarks_ms: Watermarks that were sent, each with the number of rows sent before it.
        acknowledged: Ids of the barriers that were acknowledged, each with the number of rows
            sent before it.
        declined: Ids of the barriers that were declined.
        is_every_acknowledged: Whether `acknowledge_every` was called.
        states: States that came with acknowledgements, each with the id of its barrier; None
            for every later one.
        aborted_ids: Ids of checkpoints to call aborted.
        has_sent_end: Whether `send_end` was called.
        is_closed: Whether `close` was called.
    """

    def __init__(
        self,
        items: Iterable[Item] = (),
        *,
        input_schema: pa.Schema | None = None,
        output_schema: pa.Schema | None = None,
    ) -> None:
        """Feed `items`, taken from the iterable when they are asked for."""
        self._items: Iterator[Item] = iter(items)
        self._inbox: deque[Item] = deque()
        self._input_schema = input_schema
        self._output_schema = output_schema
        self._is_ended = False
        self.sent: list[pa.RecordBatch] = []
        self.sent_timestamps_ms: list[pa.Array | None] = []
        self.sent_rows = 0
        self.watermarks_ms: list[tuple[int, int]] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.declined: list[int] = []
        self.is_every_acknowledged = False
        self.states: list[tuple[int | None, bytes]] = []
        self.aborted_ids: set[int] = set()
        self._files = StateFiles()
        self._on_complete: Callable[[int], object] = lambda _: None
        self.has_sent_end = False
        self.is_closed = False

    @classmethod
    def of_table(
        cls, table: pa.Table, *, batch_rows: int = 4096, output_schema: pa.Schema | None = None
    ) -> MemoryFeed:
        """Feed `table` in batches of at most `batch_rows`, the last watermark and the end."""
        return cls(
            _items_of(table, batch_rows),
            input_schema=table.schema,
            output_schema=output_schema,
        )

    @property
    def input_schema(self) -> pa.Schema | None:
        """Columns that come in."""
        return self._input_schema

    @property
    def output_schema(self) -> pa.Schema | None:
        """Columns that go out."""
        return self._output_schema

    @property
    def output(self) -> pa.Table:
        """Everything that was sent, as one table."""
        if self._output_schema is None:
            msg = "This feed has no output schema"
            raise UsageError(msg)
        return pa.Table.from_batches(self.sent, schema=self._output_schema)

    def add(self, *items: Item) -> None:
        """Feed `items` before those that are left of the iterable."""
        self._inbox.extend(items)

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:  # noqa: ARG002
        """Take the next item, without waiting; see `Feed.receive`."""
        if self._input_schema is None:
            msg = "This role has no input: it gets no rows"
            raise UsageError(msg)
        item = self._inbox.popleft() if self._inbox else next(self._items, None)
        self._is_ended = self._is_ended or isinstance(item, End)
        if item is None and self._is_ended:
            return End()
        if item is None and timeout_s is None:
            msg = "The items are used up without an End, and the wait has no limit"
            raise UsageError(msg)
        return item

    def expect_state(self, size_bytes: int) -> None:
        """Make memory for the first state ahead; see `Feed.expect_state`."""
        self._files.expect(size_bytes)

    def take_state(self, size_bytes: int) -> StateFile:
        """Return memory for a state; see `Feed.take_state`."""
        return self._files.take(size_bytes)

    def is_aborted(self, checkpoint_id: int) -> bool:
        """Look into `aborted_ids`."""
        return checkpoint_id in self.aborted_ids

    def watch(self, *, timeout_s: float) -> None:
        """Return at once; see `Feed.watch`."""

    def acknowledge(self, checkpoint_id: int, state: StateFile | None = None) -> None:
        """Note the acknowledgement."""
        self.acknowledged.append((checkpoint_id, self.sent_rows))
        self._note(checkpoint_id, state)

    def on_complete(self, call: Callable[[int], object]) -> None:
        """Name who is told by `complete`."""
        self._on_complete = call

    def complete(self, checkpoint_id: int) -> None:
        """Say that a checkpoint has completed, on the thread that uses the feed."""
        self._on_complete(checkpoint_id)

    def let_go(self, state: StateFile) -> None:
        """Say that a state is read no longer; see `Feed.let_go`."""
        self._files.let_go(state)

    def decline(self, checkpoint_id: int) -> None:
        """Note it."""
        self.declined.append(checkpoint_id)

    def acknowledge_every(self, state: StateFile | None = None) -> None:
        """Note that no later barrier must wait."""
        self.is_every_acknowledged = True
        self._note(None, state)

    def send(self, batch: pa.RecordBatch, timestamps_ms: pa.Array | None = None) -> None:
        """Keep the rows; see `Feed.send`."""
        if self._output_schema is None:
            msg = "This role has no output: give an output schema to emit rows"
            raise UsageError(msg)
        if self.has_sent_end:
            msg = "Nothing can be sent after the end of the output"
            raise UsageError(msg)
        self.sent.append(conform(batch, self._output_schema))
        self.sent_timestamps_ms.append(timestamps_ms)
        self.sent_rows += batch.num_rows

    def send_watermark(self, timestamp_ms: int) -> None:
        """Note the watermark."""
        self.watermarks_ms.append((timestamp_ms, self.sent_rows))

    def send_end(self, state: StateFile | None = None) -> None:
        """Note the end."""
        self.has_sent_end = True
        self._note(None, state)

    def close(self) -> None:
        """Note the close."""
        self.is_closed = True
        self._files.close()

    def _note(self, checkpoint_id: int | None, state: StateFile | None) -> None:
        if state is not None:
            self.states.append((checkpoint_id, bytes(state.memory)))
            self._files.lend(state)
            self._files.give_back(state.number)


_MAX_WATERMARK_MS = (1 << 63) - 1


def _items_of(table: pa.Table, batch_rows: int) -> Iterator[Item]:
    for batch in table.to_batches(max_chunksize=batch_rows):
        if batch.num_rows:
            yield Batch(batch)
    yield Watermark(_MAX_WATERMARK_MS)
    yield End()
