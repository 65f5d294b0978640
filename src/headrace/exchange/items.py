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
