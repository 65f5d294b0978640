"""Column types between Python declarations and Flink's `RowType`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes
from pyflink.table.types import DataType, RowType, _to_java_data_type

from headrace.errors import PlanError
from headrace.operator.failure import cause_text

__all__ = ["OutputSchema", "float_column", "join_row_types", "to_java_row_type", "to_row_type"]

OutputSchema: TypeAlias = Mapping[str, DataType] | DataType
"""Columns that a role emits: `{"id": DataTypes.BIGINT(), ...}` or a `DataTypes.ROW([...])`."""


def to_java_row_type(output: OutputSchema) -> Any:
    """Return Flink's logical `RowType` (a Java object) for the declared columns.

    Raises:
        PlanError: `output` is neither a mapping of names to PyFlink types nor a ROW type, or
            has no columns, or Flink refuses it, for example for a name that is there twice.
    """
    row = to_row_type(output, "output")
    if not row.fields:
        msg = "output={} declares no column; leave `output` out for a role that emits nothing"
        raise PlanError(msg)
    try:
        return _to_java_data_type(row).getLogicalType()
    except Exception as exc:
        msg = f"output with the columns {row.names} is no row type for Flink: {cause_text(exc)}"
        raise PlanError(msg) from exc


def float_column(name: str) -> OutputSchema:
    """Return the declaration of one FLOAT column."""
    return {name: DataTypes.FLOAT()}


def join_row_types(j_first: Any, kept: Sequence[str], j_second: Any) -> Any:
    """Return a Java `RowType` of the columns `kept` of one, and behind them all of another."""
    jvm = get_gateway().jvm
    fields = jvm.java.util.ArrayList()
    by_name = {field.getName(): field for field in j_first.getFields()}
    for name in kept:
        fields.add(by_name[name])
    fields.addAll(j_second.getFields())
    return jvm.org.apache.flink.table.types.logical.RowType(fields)


def to_row_type(columns: OutputSchema, parameter: str) -> RowType:
    """Return PyFlink's row type for declared columns.

    Args:
        columns: The declaration.
        parameter: What the caller's user calls it, for error texts.

    Raises:
        PlanError: `columns` is neither a mapping of names to PyFlink types nor a ROW type.
    """
    if isinstance(columns, RowType):
        return columns
    if isinstance(columns, Mapping):
        for name, column in columns.items():
            if not isinstance(column, DataType):
                msg = (
                    f"{parameter}[{name!r}]={column!r} is not a PyFlink type; "
                    "use for example DataTypes.FLOAT()"
                )
                raise PlanError(msg)
        fields = [DataTypes.FIELD(name, column) for name, column in columns.items()]
        row: RowType = DataTypes.ROW(fields)
        return row
    msg = (
        f"{parameter}={columns!r} must be a mapping of column names to PyFlink types "
        "or DataTypes.ROW([...])"
    )
    raise PlanError(msg)
