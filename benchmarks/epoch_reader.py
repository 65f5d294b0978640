"""Entry function of `benchmarks.epochs`: later passes over the input beside one over a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

__all__ = ["read_in_turns"]

_FILE_BATCH_ROWS = 16_384


def read_in_turns(ctx: Any, *, batch_rows: int, epochs: int, path: str) -> None:
    """Read the input `epochs` times; before each later pass, read the same rows in a file.

    The first pass writes the file. Each value of every batch is added up, so that the memory is
    read and not only pointed at. Reports rows/s of the passes, without the first, and of the
    file.
    """
    writer = _FileWriter(path)
    passes = [_Pass()]
    present = passes[0]
    for batch in ctx.arrow_batches(rows=batch_rows, epochs=epochs):
        epoch = ctx.epoch
        if epoch == 0:
            writer.write(batch)
        elif epoch == len(passes):
            present.end()
            writer.close()
            from_file = _read_file(path, batch_rows)
            from_file.require_same(passes[0])
            ctx.report(**{f"file_{epoch}": from_file.rows_per_s})
            present = _Pass()
            passes.append(present)
        present.take(batch)
    present.end()
    for epoch, each in enumerate(passes[1:], start=1):
        each.require_same(passes[0])
        ctx.report(**{f"epoch_{epoch}": each.rows_per_s})


class _Pass:
    """A pass over rows: adds them up, and takes the time from its making to `end`."""

    def __init__(self) -> None:
        self._rows = 0
        self._total = 0.0
        self._seconds = 0.0
        self._begin = time.perf_counter()

    @property
    def rows_per_s(self) -> float:
        return self._rows / self._seconds

    def take(self, batch: pa.RecordBatch) -> None:
        self._total += float(batch.column(0).flatten().to_numpy().sum())
        self._rows += batch.num_rows

    def end(self) -> None:
        self._seconds = time.perf_counter() - self._begin

    def require_same(self, other: _Pass) -> None:
        mine, others = (self._rows, self._total), (other._rows, other._total)
        assert mine == others, f"{mine} rows and sum, not {others}"


class _FileWriter:
    """Writes an Arrow file with batches of a usual size."""

    def __init__(self, path: str) -> None:
        self._file = pa.OSFile(path, "wb")
        self._writer: Any = None
        self._held: list[pa.RecordBatch] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self._writer = self._writer or pa.ipc.new_file(self._file, batch.schema)
        self._held.append(batch)
        if sum(each.num_rows for each in self._held) >= _FILE_BATCH_ROWS:
            self._flush()

    def close(self) -> None:
        if not self._file.closed:
            self._flush()
            self._writer.close()
            self._file.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held).combine_chunks())
            self._held = []


def _read_file(path: str, batch_rows: int) -> _Pass:
    """Read a memory-mapped Arrow file in batches, as fast as pyarrow cuts them."""
    read = _Pass()
    with pa.memory_map(path) as mapped:
        for batch in _batches(mapped, batch_rows):
            read.take(batch)
    read.end()
    return read


def _batches(mapped: Any, batch_rows: int) -> Iterator[pa.RecordBatch]:
    yield from pa.ipc.open_file(mapped).read_all().to_batches(max_chunksize=batch_rows)
