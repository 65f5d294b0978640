"""Arrow columns to NumPy arrays, by one rule per kind of type.

| column | array | NULL |
|---|---|---|
| FLOAT, DOUBLE | float32, float64; no copy without NULL | NaN |
| integers | same width; no copy without NULL | an error, or see `nulls="mask"` |
| BOOLEAN | bool | an error, or see `nulls="mask"` |
| DATE | datetime64[D] | NaT |
| TIMESTAMP | datetime64 of the column's unit (TIMESTAMP_LTZ: in UTC) | NaT |
| TIME | timedelta64 of the column's unit, since midnight | NaT |
| CHAR, VARCHAR, BINARY, VARBINARY | object: `str`, `bytes` | None |
| DECIMAL | object: `decimal.Decimal` | None |
| ARRAY of numbers, BOOLEAN | (rows, k) if of one length, else object: arrays | object: None |
| other ARRAY, ROW, MAP | object: lists, dicts, lists of pairs | None |

NULL elements inside an ARRAY follow the rule of the element's type, but there is no mask for
them.

With `nulls="mask"` each integer and BOOLEAN column `c` that may be NULL comes with a second
array, `c__valid` (bool); where it is False, `c` holds 0 or False. It is there for every batch,
NULL or not.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from headrace.errors import DataError

__all__ = ["VALID_SUFFIX", "NullRule", "column_to_numpy", "to_numpy"]

NullRule: TypeAlias = Literal["error", "mask"]
Array: TypeAlias = npt.NDArray[Any]

VALID_SUFFIX = "__valid"
_DAY = "datetime64[D]"


def to_numpy(batch: pa.RecordBatch, nulls: NullRule = "error") -> dict[str, Array]:
    """Return the columns of `batch` as arrays, in order; see the module for the rules.

    Arrays that share memory with the batch are read-only and keep it alive.

    Raises:
        DataError: An integer or BOOLEAN column has a NULL, and `nulls` is "error"; or an
            element of an ARRAY of them is NULL; or a column has the name of a mask.
    """
    arrays: dict[str, Array] = {}
    for field, column in zip(batch.schema, batch.columns, strict=True):
        if nulls == "mask" and field.nullable and _has_no_null_value(field.type):
            _require_free(field.name + VALID_SUFFIX, batch.schema)
            arrays[field.name] = column_to_numpy(
                field.name, column.fill_null(_zero(field.type))
            )
            arrays[field.name + VALID_SUFFIX] = column.is_valid().to_numpy(zero_copy_only=False)
        else:
            arrays[field.name] = column_to_numpy(field.name, column)
    return arrays


def column_to_numpy(name: str, column: pa.Array) -> Array:
    """Return one column as an array; see the module for the rules.

    Args:
        name: For the error's text.
        column: Any Arrow array.

    Raises:
        DataError: An integer or BOOLEAN column, or an element of an ARRAY of them, is NULL.
    """
    kind = column.type
    if pt.is_floating(kind):
        return _array(column.to_numpy(zero_copy_only=column.null_count == 0))
    if _has_no_null_value(kind):
        if column.null_count:
            raise _has_null(name, kind, column.null_count, len(column))
        return _array(column.to_numpy(zero_copy_only=not pt.is_boolean(kind)))
    if pt.is_date(kind) or pt.is_timestamp(kind) or pt.is_time(kind):
        return _instants(column)
    if _is_list(kind):
        return _lists(name, column)
    if pt.is_nested(kind):
        return _objects(column.to_pylist())
    return _array(column.to_numpy(zero_copy_only=False))


def _require_free(name: str, schema: pa.Schema) -> None:
    if schema.get_field_index(name) >= 0:
        msg = (
            f"nulls='mask' adds the array {name!r}, and a column has that name; rename the "
            "column in SQL"
        )
        raise DataError(msg)


def _has_no_null_value(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_boolean(kind))


def _zero(kind: pa.DataType) -> pa.Scalar:
    return pa.scalar(0, pa.int8()).cast(kind)


def _has_null(name: str, kind: pa.DataType, nulls: int, rows: int) -> DataError:
    return DataError(
        f"Column {name!r} ({kind}) has {nulls} NULL in {rows} values, and {kind} has no value "
        f"for NULL. Say what it means in SQL, COALESCE({name}, 0) or WHERE {name} IS NOT NULL; "
        "or read it with ctx.batches(nulls='mask'), which adds the array "
        f"{name + VALID_SUFFIX!r}."
    )


def _instants(column: pa.Array) -> Array:
    kind = column.type
    if pt.is_date32(kind):
        whole, unit = column.cast(pa.int32()), _DAY
    elif pt.is_date64(kind):
        return _instants(column.cast(pa.date32()))
    else:
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        name = "datetime64" if pt.is_timestamp(kind) else "timedelta64"
        whole, unit = column.cast(width), f"{name}[{kind.unit}]"
    if whole.null_count == 0 and whole.type == pa.int64():
        return _array(whole.to_numpy().view(unit))
    # NaT is the smallest int64 in both of NumPy's types.
    filled = whole.cast(pa.int64()).fill_null(np.iinfo(np.int64).min)
    return _array(filled.to_numpy().view(unit))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _lists(name: str, column: pa.Array) -> Array:
    element = column.type.value_type
    if not (_has_no_null_value(element) or pt.is_floating(element)) or not len(column):
        return _objects(column.to_pylist())
    values = column.flatten()  # of the rows that are not NULL, in order
    flat = _elements(name, values)
    lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
    if column.null_count == 0 and (lengths == lengths[0]).all():
        return flat.reshape(len(column), int(lengths[0]))
    ends = np.cumsum(np.nan_to_num(lengths).astype(np.int64))
    parts = np.split(flat, ends[:-1])
    is_valid = column.is_valid().to_numpy(zero_copy_only=False)
    return _objects([part if ok else None for part, ok in zip(parts, is_valid, strict=True)])


def _elements(name: str, values: pa.Array) -> Array:
    if values.null_count and _has_no_null_value(values.type):
        msg = (
            f"Column {name!r} (ARRAY of {values.type}) has {values.null_count} NULL elements, "
            f"and {values.type} has no value for NULL. Filter or replace them in SQL, or CAST "
            "the column to ARRAY<DOUBLE>, where NULL becomes NaN."
        )
        raise DataError(msg)
    return column_to_numpy(name, values)


def _objects(values: list[Any]) -> Array:
    array = np.empty(len(values), dtype=object)
    # Element by element: NumPy would make a matrix of lists of one length.
    for index, value in enumerate(values):
        array[index] = value
    return array


def _array(value: Any) -> Array:
    assert isinstance(value, np.ndarray)
    return value
