"""What an entry function emits, made into rows of the output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from headrace.errors import DataError
from headrace.exchange import conform, conform_column, require_names

__all__ = ["to_batches", "to_columns", "to_timestamps_ms"]


def to_batches(
    columns: Mapping[str, Any] | pa.RecordBatch | pa.Table, schema: pa.Schema
) -> list[pa.RecordBatch]:
    """Return `columns` as record batches of `schema`, in order of the rows.

    Args:
        columns: A record batch, a table, or a mapping of every column's name to its values: an
            Arrow array, a NumPy array, a tensor of any framework (it is detached and moved to
            the CPU), or a list or tuple. All have one length. An array of shape (rows, k) is a
            column of lists; a single value is refused.
        schema: The output's columns.

    Raises:
        DataError: Columns are missing, too many or of different lengths, or a column does not
            fit its type.
    """
    if isinstance(columns, pa.RecordBatch):
        return [conform(columns, schema)]
    if isinstance(columns, pa.Table):
        return [conform(batch, schema) for batch in columns.to_batches() if batch.num_rows]
    if not isinstance(columns, Mapping):
        msg = (
            "ctx.emit takes a mapping of column names to values, a pyarrow RecordBatch or a "
            f"Table, not {type(columns).__name__}"
        )
        raise DataError(msg)
    require_names(list(columns), schema)
    arrays = to_columns(columns, schema)
    lengths = {field.name: len(array) for field, array in zip(schema, arrays, strict=True)}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name}: {rows}" for name, rows in lengths.items())
        msg = f"The columns have different numbers of rows ({told})"
        raise DataError(msg)
    return [pa.RecordBatch.from_arrays(arrays, schema=schema)]


def to_columns(columns: Mapping[str, Any], schema: pa.Schema) -> list[pa.Array]:
    """Return the values of every column of `schema` as Arrow arrays, in its order.

    Args:
        columns: For each name, values as in `to_batches`; they may be of different lengths.
        schema: The columns.

    Raises:
        DataError: A column does not fit its type.
    """
    return [conform_column(_array_of(columns[field.name], field), field) for field in schema]


def to_timestamps_ms(values: Any) -> pa.Array | None:
    """Return row timestamps as int64 milliseconds, NULL where there is none.

    Args:
        values: None, or one per row: whole milliseconds since 1970 (None for none), or
            datetime64 (NaT for none).

    Raises:
        DataError: The values are something else.
    """
    if values is None:
        return None
    array = _array_of(values, pa.field("timestamps_ms", pa.int64()))
    if pa.types.is_timestamp(array.type):
        array = conform_column(array, pa.field("timestamps_ms", pa.timestamp("ms"))).cast(
            pa.int64()
        )
    return conform_column(array, pa.field("timestamps_ms", pa.int64()))


def _array_of(values: Any, field: pa.Field) -> pa.Array:
    """Return `values` as an Arrow array; lists get the field's type at once."""
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, list | tuple):
        return _of_sequence([_plain(value) for value in values], field)
    try:
        array = _to_numpy(values)
    except (TypeError, ValueError) as exc:
        msg = f"Column {field.name!r}: {type(values).__name__} cannot become an array: {exc}"
        raise DataError(msg) from exc
    if array.ndim == 0:
        msg = (
            f"Column {field.name!r} is a single value ({type(values).__name__}), not one per "
            "row; repeat it, for example with numpy.full"
        )
        raise DataError(msg)
    if array.ndim == 1:
        return _of_numpy(array, field)
    return _of_matrix(array, field)


def _of_sequence(values: list[Any], field: pa.Field) -> pa.Array:
    try:
        return pa.array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
        msg = f"Column {field.name!r}: a value does not fit the output's {field.type}: {exc}"
        raise DataError(msg) from exc


def _of_numpy(array: np.ndarray[Any, Any], field: pa.Field) -> pa.Array:
    if array.dtype.kind in "OT":
        return _of_sequence([_plain(value) for value in array], field)
    if array.dtype.kind == "m" and pa.types.is_time(field.type):
        unit = f"timedelta64[{field.type.unit}]"
        whole = pa.array(array.astype(unit).astype(np.int64), mask=np.isnat(array))
        width = pa.int32() if field.type.bit_width == 32 else pa.int64()
        return whole.cast(width).cast(field.type)
    try:
        return pa.array(array)
    except (pa.ArrowException, TypeError, ValueError) as exc:
        msg = (
            f"Column {field.name!r} holds {array.dtype}, which does not fit {field.type}: {exc}"
        )
        raise DataError(msg) from exc


def _of_matrix(array: np.ndarray[Any, Any], field: pa.Field) -> pa.Array:
    if not pa.types.is_list(field.type):
        msg = (
            f"Column {field.name!r} has shape {array.shape}, which is one list per row, but "
            f"the output's type is {field.type}; emit an array of shape ({array.shape[0]},)"
        )
        raise DataError(msg)
    if array.ndim > 2:
        inner = _of_matrix(array.reshape(-1, *array.shape[2:]), field.type.value_field)
    else:
        inner = _of_numpy(array.reshape(-1), field.type.value_field)
    inner = conform_column(inner, field.type.value_field.with_name(field.name))
    rows, width = array.shape[:2]
    offsets = pa.array(np.arange(rows + 1, dtype=np.int32) * np.int32(width))
    return pa.ListArray.from_arrays(offsets, inner, type=field.type)


def _to_numpy(values: Any) -> np.ndarray[Any, Any]:
    """Return an array-like as NumPy; a tensor is told by what it can do, not by its type."""
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        try:
            return np.asarray(values)
        except TypeError:  # a type that NumPy does not have, such as bfloat16
            return np.asarray(values.float())
    has_rows = hasattr(values, "__array__") or hasattr(values, "__len__")
    if not has_rows or isinstance(values, str | bytes):
        return np.empty(())
    return np.asanyarray(values)  # a masked array stays one


def _plain(value: Any) -> Any:
    """Return what pyarrow reads inside a list: an array or tensor becomes lists or a number."""
    if hasattr(value, "__array__") and not isinstance(value, np.generic):
        return _to_numpy(value).tolist()
    return value
