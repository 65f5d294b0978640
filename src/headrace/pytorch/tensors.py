"""Arrow columns as tensors, without a copy wherever torch can hold the type.

| column | value |
|---|---|
| integers, FLOAT, DOUBLE | tensor of the same type; no copy without NULL |
| BOOLEAN | bool tensor; one copy, which unpacks Arrow's bits |
| ARRAY of numbers or BOOLEAN, all of length k | tensor (rows, k); no copy unless BOOLEAN |
| DATE, TIME, TIMESTAMP | NumPy datetime64 or timedelta64: torch has no such types |
| strings, bytes, DECIMAL, ROW, MAP, arrays of other lengths | NumPy array of objects |

NULL follows `headrace.role.arrays`: NaN in floating point, an error that names the column in
integers and BOOLEAN, or with `nulls="mask"` a second tensor ``<column>__valid``.

A tensor shares memory with the batch that it came from and keeps it alive. It is read-only by
contract, which torch cannot enforce: ``clone()`` before an in-place operation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
import torch
from torch.utils.dlpack import from_dlpack

from headrace.role.arrays import NullRule, to_numpy

__all__ = ["Column", "TensorConverter"]

Column: TypeAlias = Any
"""A tensor, or a NumPy array where torch has no such type."""


class TensorConverter:
    """Converts the batches of one schema; see the module for the rules. One thread.

    Args:
        schema: Columns of every batch.
        nulls: What to do with NULL in integers and BOOLEAN.
    """

    def __init__(self, schema: pa.Schema, nulls: NullRule = "error") -> None:
        self.nulls = nulls
        self._fields = [
            (field, _shared_form(field, nulls), pa.schema([field])) for field in schema
        ]

    def __call__(self, batch: pa.RecordBatch) -> dict[str, Column]:
        """Return the columns of `batch` by name, in order.

        Raises:
            DataError: A column has a NULL that its type cannot hold, and `nulls` is "error".
        """
        columns: dict[str, Column] = {}
        for index, (field, share, schema) in enumerate(self._fields):
            column = batch.column(index)
            tensor = share(column) if share is not None and not column.null_count else None
            if tensor is not None:
                columns[field.name] = tensor
                continue
            alone = pa.RecordBatch.from_arrays([column], schema=schema)
            for name, array in to_numpy(alone, self.nulls).items():
                columns[name] = _from_numpy(array)
        return columns


def _shared_form(
    field: pa.Field, nulls: NullRule
) -> Callable[[pa.Array], torch.Tensor | None] | None:
    """Return what makes a tensor over a column's own memory, or None if nothing can."""
    if nulls == "mask" and field.nullable and _has_mask(field.type):
        return None
    if _is_number(field.type):
        return from_dlpack
    if pt.is_list(field.type) and _is_number(field.type.value_type):
        return _matrix
    return None


def _matrix(column: pa.Array) -> torch.Tensor | None:
    """Return lists of one length as (rows, k); None for other lists."""
    rows = len(column)
    if not rows:
        return None
    ends = column.offsets.to_numpy()
    first, last = int(ends[0]), int(ends[-1])
    width = (last - first) // rows
    values = column.values.slice(first, last - first)
    if values.null_count or not (ends[1:] - ends[:-1] == width).all():
        return None
    return from_dlpack(values).view(rows, width)


def _from_numpy(array: np.ndarray[Any, Any]) -> Column:
    if array.dtype.kind not in "fiub":
        return array
    # torch warns about memory that it cannot write; what is read-only here is Arrow's.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _has_mask(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind))
