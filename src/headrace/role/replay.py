"""A later pass over the input: batches of a spool, cut anew."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from headrace.exchange import Batch, Rebatcher, stamped, unstamped
from headrace.role.polled import ReadyBatch

__all__ = ["behind", "replay"]


def replay(spooled: Iterator[Batch], rebatcher: Rebatcher, epoch: int) -> Iterator[ReadyBatch]:
    """Cut the rows of `spooled` into batches of `rebatcher.rows`, the last with the rest.

    Up to `rebatcher.at_once` of them come together. Between two of what is yielded both may
    change, and rows may be put back into `rebatcher`. A step of this is most of what a
    later pass costs, so the usual case, in which what is cut lies within one batch of the file,
    goes without the rebatcher.
    """
    for batch in spooled:
        rest = batch
        if not rebatcher.held_rows:
            rows = rebatcher.rows * rebatcher.at_once
            taken = 0
            for piece in _pieces(batch.columns, rows):
                is_changed = rebatcher.rows * rebatcher.at_once != rows
                if piece.num_rows < rows or is_changed or rebatcher.held_rows:
                    break
                stamps = batch.timestamps_ms
                if stamps is not None:
                    stamps = _stamps_or_none(stamps.slice(taken, rows))
                taken += rows
                yield ReadyBatch(piece, stamps, epoch)
            rest = _behind(batch, taken)
        rebatcher.push(stamped(rest))
        while (full := rebatcher.take()) is not None:
            yield _ready(full, epoch)
    while (last := rebatcher.take() or rebatcher.flush()) is not None:
        yield _ready(last, epoch)


def behind(spooled: Iterator[Batch], rows: int) -> Iterator[Batch]:
    """Leave the first `rows` rows of `spooled` out. Nothing is copied."""
    for batch in spooled:
        left_out = min(rows, batch.columns.num_rows)
        rows -= left_out
        if left_out < batch.columns.num_rows:
            yield _behind(batch, left_out)


def _pieces(columns: pa.RecordBatch, rows: int) -> list[pa.RecordBatch]:
    """Cut `columns` into slices of `rows` rows, the last with the rest. Nothing is copied."""
    pieces: list[pa.RecordBatch] = pa.Table.from_batches([columns]).to_batches(rows)
    return pieces


def _behind(batch: Batch, rows: int) -> Batch:
    """Return what of `batch` follows its first `rows` rows; may be without rows."""
    stamps = batch.timestamps_ms
    return Batch(batch.columns.slice(rows), None if stamps is None else stamps.slice(rows))


def _ready(rows: pa.RecordBatch, epoch: int) -> ReadyBatch:
    batch = unstamped(rows)
    return ReadyBatch(batch.columns, batch.timestamps_ms, epoch)


def _stamps_or_none(stamps: pa.Array) -> pa.Array | None:
    return None if stamps.null_count == len(stamps) else stamps
