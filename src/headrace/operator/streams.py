"""Between PyFlink's tables and streams and the row streams that operators take and give."""

from __future__ import annotations

from typing import Any

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table

from headrace.errors import PlanError
from headrace.operator.environment import FlinkEnvironment
from headrace.operator.failure import cause_text

__all__ = [
    "environment_of",
    "input_stream",
    "is_bounded",
    "is_fed_by",
    "output_of",
]


def environment_of(
    rows: Table | DataStream,
) -> StreamTableEnvironment | StreamExecutionEnvironment:
    """Return the environment that made `rows`.

    Raises:
        PlanError: `rows` is something else.
    """
    if isinstance(rows, DataStream):
        return rows.get_execution_environment()
    if isinstance(rows, Table):
        return rows._t_env  # noqa: SLF001 (no public way)
    msg = f"rows are a {type(rows).__name__}; a role takes a Table or a DataStream"
    raise PlanError(msg)


def input_stream(
    flink: FlinkEnvironment, role: str, given: Table | DataStream
) -> tuple[Any, Any]:
    """Return the Java stream of internal rows of `given`, and their `RowType`.

    Args:
        flink: Where the job is planned.
        role: Name of the role that takes the rows, for error texts.
        given: An insert-only table of `flink.t_env`, or a stream of rows with named fields.

    Raises:
        PlanError: It is neither, belongs to another table environment, or is an updating table.
    """
    j_records = None
    if isinstance(given, DataStream):
        j_records = given._j_data_stream  # noqa: SLF001 (no public way)
        given = flink.t_env.from_data_stream(given)
    if not isinstance(given, Table):
        kind = type(given).__name__
        msg = f"input of role {role!r} is a {kind}; it takes a Table or a DataStream"
        raise PlanError(msg)
    j_table, j_t_env = given._j_table, flink.t_env._j_tenv  # noqa: SLF001 (no public way)
    if not given._t_env._j_tenv.equals(j_t_env):  # noqa: SLF001
        msg = (
            f"input of role {role!r} is a table of another table environment than the "
            "cluster's; make the Cluster with the environment that made the table"
        )
        raise PlanError(msg)
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    try:
        j_type = builder.rowType(j_table)
        if j_records is not None:
            return builder.toRowData(j_t_env, j_records, j_type), j_type
        return builder.toRowData(j_t_env, j_table), j_type
    except Exception as exc:
        raise PlanError(_refusal(role, cause_text(exc))) from exc


def is_bounded(j_stream: Any) -> bool:
    """Return whether every source behind a Java stream ends by itself."""
    return bool(get_gateway().jvm.org.headrace.operator.ClusterBuilder.isBounded(j_stream))


def output_of(
    flink: FlinkEnvironment, j_stream: Any, j_type: Any, *, is_stream: bool
) -> Table | DataStream:
    """Return the rows that a role emits: a table of `flink.t_env`, or a stream of rows.

    A stream's records have their timestamps.
    """
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    if is_stream:
        return DataStream(builder.toDataStream(j_stream, j_type))
    j_table = builder.fromRowData(flink.t_env._j_tenv, j_stream, j_type)  # noqa: SLF001
    return Table(j_table, flink.t_env)


def is_fed_by(j_stream: Any, j_other: Any) -> bool:
    """Return whether rows of a Java stream may have come out of another one."""
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    return bool(builder.isFedBy(j_stream, j_other))


def _refusal(role: str, text: str) -> str:
    if "update and delete changes" in text or "update changes" in text:
        return (
            f"input of role {role!r} is an updating table: {text}\n"
            "Roles take rows that are only added. Use inner or temporal joins "
            "and windowed aggregations in its query."
        )
    return f"input of role {role!r} cannot be planned: {text}"
