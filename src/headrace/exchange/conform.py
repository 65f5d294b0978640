"""Makes a record batch fit a schema, or says why it does not."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.types as pt

from headrace.errors import DataError

__all__ = ["conform", "conform_column", "require_names"]


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return `batch` with exactly the columns, order and types of `schema`.

    Columns are found by name. A value that the column's type cannot hold is an error, never a
    silent change; only the rounding of DOUBLE to FLOAT is taken. A batch that fits already is
    returned as it is.

    Raises:
        DataError: Columns are missing or too many, or a column cannot be cast; the text names
            the column and both types.
    """
    if batch.schema.equals(schema):
        return batch
    require_names(batch.schema.names, schema)
    columns = [conform_column(batch.column(field.name), field) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def require_names(found: Sequence[str], schema: pa.Schema) -> None:
    """Raise a `DataError` unless `found` holds exactly the names of `schema`, in any order."""
    expected = schema.names
    missing = [name for name in expected if name not in found]
    extra = [name for name in found if name not in expected]
    twice = sorted({name for name in found if list(found).count(name) > 1})
    faults = [
        f"{what}: {', '.join(names)}"
        for what, names in (
            ("missing", missing),
            ("not in the output", extra),
            ("twice", twice),
        )
        if names
    ]
    if faults:
        msg = (
            f"The rows do not have the output's columns ({', '.join(expected)}). "
            f"{'; '.join(faults)}"
        )
        raise DataError(msg)


def conform_column(column: pa.Array, field: pa.Field) -> pa.Array:
    """Return `column` with the type of `field`.

    Raises:
        DataError: The types are of different kinds, a value does not fit, or a NULL is in a
            column that is NOT NULL.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not field.nullable and column.null_count:
        msg = (
            f"Column {field.name!r} is NOT NULL, but {column.null_count} of its values are NULL"
        )
        raise DataError(msg)
    if column.type.equals(field.type):
        return column
    if not _is_castable(column.type, field.type):
        msg = (
            f"Column {field.name!r} holds {column.type}, which does not fit the output's "
            f"{field.type}"
        )
        raise DataError(msg)
    try:
        if pt.is_integer(column.type) and pt.is_decimal(field.type):
            # A direct cast judges by the integer's type, this one by its values.
            column = column.cast(pa.decimal128(38, field.type.scale))
        return column.cast(field.type)
    except pa.ArrowException as exc:
        msg = f"Column {field.name!r} ({column.type}) cannot become {field.type}: {exc}"
        raise DataError(msg) from exc


def _is_castable(source: pa.DataType, target: pa.DataType) -> bool:
    if pt.is_dictionary(source):
        source = source.value_type
    if pt.is_null(source):
        return True
    if _is_list(source) and _is_list(target):
        return _is_castable(source.value_type, target.value_type)
    return _kind(source) == _kind(target)


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))


def _kind(kind: pa.DataType) -> str:
    for name, is_kind in _KINDS:
        if is_kind(kind):
            return name
    return str(kind)


_KINDS = (
    ("boolean", pt.is_boolean),
    ("number", lambda kind: pt.is_integer(kind) or pt.is_floating(kind) or pt.is_decimal(kind)),
    ("text", lambda kind: pt.is_string(kind) or pt.is_large_string(kind) or _is_bytes(kind)),
    ("instant", lambda kind: pt.is_date(kind) or pt.is_timestamp(kind)),
    ("time", pt.is_time),
    ("struct", pt.is_struct),
    ("map", pt.is_map),
)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind))
