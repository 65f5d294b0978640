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

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
import torch
from torch.utils.dlpack import from_dlpack

from headrace.role.arrays import NullRule, to_numpy

__all__ = ["Column", "to_tensors"]

Column: TypeAlias = Any
"""A tensor, or a NumPy array where torch has no such type."""


def to_tensors(batch: pa.RecordBatch, nulls: NullRule = "error") -> dict[str, Column]:
    """Return the columns of `batch` in order; see the module for the rules.

    Raises:
        DataError: A column has a NULL that its type cannot hold, and `nulls` is "error".
    """
    columns: dict[str, Column] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        is_masked = nulls == "mask" and field.nullable and _has_mask(field.type)
        tensor = None if is_masked else _shared(column)
        if tensor is not None:
            columns[field.name] = tensor
            continue
        alone = pa.RecordBatch.from_arrays([column], schema=pa.schema([field]))
        for name, array in to_numpy(alone, nulls).items():
            columns[name] = _from_numpy(array)
    return columns


def _shared(column: pa.Array) -> torch.Tensor | None:
    """Return a tensor over the column's own memory, or None if there can be none."""
    if column.null_count:
        return None
    if _is_number(column.type):
        return from_dlpack(column)
    if pt.is_list(column.type) and len(column) and _is_number(column.type.value_type):
        values = column.flatten()
        ends = column.offsets.to_numpy()
        lengths = ends[1:] - ends[:-1]
        if values.null_count == 0 and (lengths == lengths[0]).all():
            return from_dlpack(values).view(len(column), int(lengths[0]))
    return None


def _from_numpy(array: np.ndarray[Any, Any]) -> Column:
    if array.dtype.kind not in "fiub":
        return array
    # torch warns about memory that it cannot write; what is read-only here is Arrow's.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _has_mask(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_boolean(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind))
