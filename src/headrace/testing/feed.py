"""A worker's input from a table, with the faults that were asked for."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from time import monotonic

import pyarrow as pa

from headrace.exchange import Batch, End, Item, MemoryFeed
from headrace.testing.faults import Fault, Kill, Pause

__all__ = ["TableFeed"]


class TableFeed(MemoryFeed):
    """Gives out a table and keeps what is emitted; unlike `MemoryFeed`, it can be quiet.

    Thread model: one thread at a time. `receive` waits through a pause for at most its
    time-out.

    Args:
        table: Rows of this worker; None: the role has no input.
        output_schema: Columns that may be emitted; None: none may.
        batch_rows: Rows of one received batch.
        faults: Those of this worker.
    """

    def __init__(
        self,
        table: pa.Table | None,
        *,
        output_schema: pa.Schema | None = None,
        batch_rows: int = 1024,
        faults: Sequence[Fault] = (),
    ) -> None:
        super().__init__(
            input_schema=None if table is None else table.schema,
            output_schema=output_schema,
        )
        self._script = iter(()) if table is None else _script(table, batch_rows, faults)
        self._quiet_until: float | None = None

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:
        """Take the next batch, or None if a pause is longer than `timeout_s`."""
        while self._is_quiet_for(timeout_s):
            return None
        for item in self._script:
            match item:
                case Batch():
                    return item
                case Kill():
                    os.kill(os.getpid(), signal.SIGKILL)
                case Pause():
                    self._quiet_until = monotonic() + item.for_s
                    return self.receive(timeout_s=timeout_s, says_idle=says_idle)
        return End()

    def _is_quiet_for(self, timeout_s: float | None) -> bool:
        """Wait through a pause; say whether it is still on after `timeout_s`."""
        if self._quiet_until is None:
            return False
        left_s = max(0.0, self._quiet_until - monotonic())
        is_longer = timeout_s is not None and timeout_s < left_s
        threading.Event().wait(timeout_s if is_longer else left_s)
        if not is_longer:
            self._quiet_until = None
        return is_longer


def _script(
    table: pa.Table, batch_rows: int, faults: Sequence[Fault]
) -> Iterator[Batch | Fault]:
    start = 0
    for fault in sorted(faults, key=lambda each: each.after_rows):
        end = min(fault.after_rows, table.num_rows)
        yield from _batches(table.slice(start, end - start), batch_rows)
        yield fault
        start = end
    yield from _batches(table.slice(start), batch_rows)


def _batches(table: pa.Table, batch_rows: int) -> Iterator[Batch]:
    for batch in table.combine_chunks().to_batches(max_chunksize=batch_rows):
        if batch.num_rows:
            yield Batch(batch)
