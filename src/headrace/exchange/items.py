"""What comes out of the memory queue, in stream order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import pyarrow as pa

__all__ = [
    "TIMESTAMP_COLUMN",
    "TIMESTAMP_FIELD",
    "Barrier",
    "Batch",
    "End",
    "Item",
    "Watermark",
    "stamped",
    "unstamped",
]

TIMESTAMP_COLUMN = "__timestamp__"
"""Name of the hidden last column on the wire: the row's Flink timestamp."""

TIMESTAMP_FIELD = pa.field(TIMESTAMP_COLUMN, pa.int64())
"""That column: milliseconds, NULL where the row has no timestamp."""


@dataclass(frozen=True, slots=True)
class Batch:
    """At least one row.

    Attributes:
        columns: The rows, without the hidden timestamp column. The memory is the reader's for
            as long as anything refers to it: arrays, NumPy views and tensors made from it stay
            valid.
        timestamps_ms: int64, one per row, NULL where the row has none; None if no row has one.
    """

    columns: pa.RecordBatch
    timestamps_ms: pa.Array | None = None


@dataclass(frozen=True, slots=True)
class Watermark:
    """No later row is older than `timestamp_ms`."""

    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Barrier:
    """A Flink checkpoint: acknowledge it once everything before it was handled and emitted."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class End:
    """The input is used up."""


Item: TypeAlias = Batch | Watermark | Barrier | End


def stamped(batch: Batch) -> pa.RecordBatch:
    """Return the rows with the hidden last column, as they go over the wire. Copies nothing."""
    timestamps_ms = batch.timestamps_ms
    if timestamps_ms is None:
        timestamps_ms = pa.nulls(batch.columns.num_rows, pa.int64())
    return batch.columns.append_column(TIMESTAMP_FIELD, timestamps_ms)


def unstamped(rows: pa.RecordBatch) -> Batch:
    """Undo `stamped`. Copies nothing."""
    last = rows.num_columns - 1
    timestamps_ms = rows.column(last)
    has_timestamps = timestamps_ms.null_count < rows.num_rows
    return Batch(rows.remove_column(last), timestamps_ms if has_timestamps else None)
