"""Entry function of `benchmarks.epochs`: later passes over the input beside one over a file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

__all__ = ["read_in_turns"]

_FILE_BATCH_ROWS = 16_384


def read_in_turns(ctx: Any, *, rows: int, batch_rows: int, epochs: int, path: str) -> None:
    """Read the `rows` of the input `epochs` times; before each later pass, read a file of them.

    The first pass writes the file. Each value of every batch is added up, so that the memory is
    read and not only pointed at. Reports rows/s of the passes, without the first, and of the
    file.
    """
    batches = iter(ctx.arrow_batches(rows=batch_rows, epochs=epochs))
    writer = _FileWriter(path)
    first = _Pass()
    first.take(writer.writing(batches), rows)
    writer.close()
    for epoch in range(1, epochs):
        from_file, later = _Pass(), _Pass()
        with pa.memory_map(path) as mapped:
            from_file.take(_batches(mapped, batch_rows), rows)
        later.take(batches, rows)
        assert ctx.epoch == epoch, f"pass {ctx.epoch}, not {epoch}"
        assert first.total == from_file.total == later.total, "the sum of all values"
        ctx.report(
            **{f"file_{epoch}": from_file.rows_per_s, f"epoch_{epoch}": later.rows_per_s}
        )
    assert next(batches, None) is None


class _Pass:
    """A pass over rows: adds them up, and takes the time."""

    def __init__(self) -> None:
        self.total = 0.0
        self.rows_per_s = 0.0

    def take(self, batches: Iterator[pa.RecordBatch], rows: int) -> None:
        """Take batches until there were `rows` rows.

        The clock runs from the first batch on: the process gets that of the second pass only
        when Flink has told the end of the input.
        """
        batch = next(batches)
        begin, taken = time.perf_counter(), 0
        while True:
            self.total += float(batch.column(0).flatten().to_numpy().sum())
            taken += batch.num_rows
            if taken >= rows:
                break
            batch = next(batches)
        assert taken == rows, f"{taken} rows, not {rows}"
        self.rows_per_s = rows / (time.perf_counter() - begin)


class _FileWriter:
    """Writes an Arrow file with batches of a usual size."""

    def __init__(self, path: str) -> None:
        self._file = pa.OSFile(path, "wb")
        self._writer: Any = None
        self._held: list[pa.RecordBatch] = []

    def writing(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Write each batch when it is taken."""
        for batch in batches:
            self._writer = self._writer or pa.ipc.new_file(self._file, batch.schema)
            self._held.append(batch)
            if sum(each.num_rows for each in self._held) >= _FILE_BATCH_ROWS:
                self._flush()
            yield batch

    def close(self) -> None:
        self._flush()
        self._writer.close()
        self._file.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_table(pa.Table.from_batches(self._held).combine_chunks())
            self._held = []


def _batches(mapped: Any, batch_rows: int) -> Iterator[pa.RecordBatch]:
    """Read a memory-mapped Arrow file in batches, as fast as pyarrow cuts them."""
    yield from pa.ipc.open_file(mapped).read_all().to_batches(max_chunksize=batch_rows)
