"""Plans tables over TFRecord files: Flink's filesystem connector with Headrace's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pyflink.java_gateway import get_gateway
from pyflink.table import Schema, Table, TableDescriptor, TableEnvironment
from pyflink.table.table_pipeline import TablePipeline
from pyflink.table.types import _to_java_data_type
from pyflink.util.java_utils import add_jars_to_context_class_loader

from headrace.errors import ConfigError, PlanError
from headrace.operator.failure import cause_text
from headrace.operator.jars import headrace_jar
from headrace.operator.schema import OutputSchema, to_row_type

__all__ = ["add_tfrecord_format", "read_tfrecord", "write_tfrecord"]

_COMPRESSIONS = ("NONE", "GZIP", "ZLIB")


def add_tfrecord_format(t_env: TableEnvironment) -> None:
    """See `headrace.tensorflow.tfrecord.add_format`."""
    if not isinstance(t_env, TableEnvironment):
        msg = f"t_env is a {type(t_env).__name__}; TFRecord files need a TableEnvironment"
        raise PlanError(msg)
    # Flink ships what ADD JAR names with every job of the environment, and looks for formats
    # there, which it does not in jars that came to `pipeline.jars` after it was created.
    t_env.execute_sql(f"ADD JAR '{headrace_jar()}'")


def read_tfrecord(
    t_env: TableEnvironment,
    path: str | Path,
    schema: OutputSchema,
    *,
    partitioned_by: Sequence[str],
    options: Mapping[str, str],
) -> Table:
    """See `headrace.tensorflow.tfrecord.read`."""
    add_tfrecord_format(t_env)
    row = to_row_type(schema, "schema")
    if not row.fields:
        msg = "schema={} declares no column; name at least one feature to read"
        raise PlanError(msg)
    columns = Schema.new_builder()
    for field in row.fields:
        columns.column(field.name, field.data_type)
    try:
        j_row_type = _to_java_data_type(row).getLogicalType()
        _column_types().requireReadable(_without(j_row_type, partitioned_by))
        return t_env.from_descriptor(
            _descriptor(path, partitioned_by, options).schema(columns.build()).build()
        )
    except Exception as exc:
        msg = f"TFRecord files of {path} cannot be read like this: {cause_text(exc)}"
        raise PlanError(msg) from exc


def write_tfrecord(
    table: Table,
    path: str | Path,
    *,
    compression: str,
    narrow_doubles: bool,
    partitioned_by: Sequence[str],
    options: Mapping[str, str],
) -> TablePipeline:
    """See `headrace.tensorflow.tfrecord.write`."""
    if not isinstance(table, Table):
        msg = f"table is a {type(table).__name__}; a PyFlink Table can be written as TFRecord"
        raise PlanError(msg)
    if compression not in _COMPRESSIONS:
        msg = f"compression={compression!r} is unknown; use one of {', '.join(_COMPRESSIONS)}"
        raise ConfigError(msg)
    add_tfrecord_format(table._t_env)  # noqa: SLF001 - PyFlink has no public way
    own = {
        "tfrecord.compression": compression,
        "tfrecord.narrow-doubles": str(narrow_doubles).lower(),
    }
    try:
        j_schema = table._j_table.getResolvedSchema()  # noqa: SLF001 - PyFlink has no public way
        j_row_type = j_schema.toPhysicalRowDataType().getLogicalType()
        _column_types().requireWritable(_without(j_row_type, partitioned_by), narrow_doubles)
        return table.insert_into(_descriptor(path, partitioned_by, {**own, **options}).build())
    except Exception as exc:
        msg = f"This table cannot be written as TFRecord files: {cause_text(exc)}"
        raise PlanError(msg) from exc


def _descriptor(
    path: str | Path, partitioned_by: Sequence[str], options: Mapping[str, str]
) -> TableDescriptor.Builder:
    descriptor = TableDescriptor.for_connector("filesystem").format("tfrecord")
    descriptor.option("path", _uri(path))
    for key, value in options.items():
        descriptor.option(key, value)
    if partitioned_by:
        descriptor.partitioned_by(*partitioned_by)
    return descriptor


def _uri(path: str | Path) -> str:
    """Return what Flink takes for `path`; its paths escape nothing."""
    if isinstance(path, str) and "://" in path:
        return path
    return f"file://{Path(path).absolute()}"


def _column_types() -> Any:
    """Return the Java class that knows which types fit."""
    add_jars_to_context_class_loader([headrace_jar().as_uri()])
    return get_gateway().jvm.org.headrace.tfrecord.ColumnTypes


def _without(j_row_type: Any, names: Sequence[str]) -> Any:
    fields = [each for each in j_row_type.getFields() if each.getName() not in names]
    return get_gateway().jvm.org.apache.flink.table.types.logical.RowType(fields)
