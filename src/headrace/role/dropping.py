"""Rows that nobody wants, of a worker that makes no more steps but answers barriers."""

from __future__ import annotations

from headrace.role.polled import EpochEnded, ReadyBatch
from headrace.role.reader import BatchReader

__all__ = ["drop_rows"]

_BATCHES = 64  # so that the other workers do not wait for a long input to be dropped


def drop_rows(reader: BatchReader) -> int:
    """Drop what lies ready, up to some batches or a barrier that is held. Does not block.

    Rows that stayed in Flink would hold up those of the other workers.

    Returns:
        How many rows of the first pass were dropped.
    """
    before = reader.rows_in
    for _ in range(_BATCHES):
        if not isinstance(reader.poll(0), ReadyBatch | EpochEnded):
            break
    return reader.rows_in - before
