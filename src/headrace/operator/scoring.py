"""Plans the scoring of a table or stream, for every framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, Table

from headrace.config import RoleConfig, TimeoutConfig
from headrace.errors import PlanError
from headrace.operator.chained import add_chained
from headrace.operator.environment import open_environment
from headrace.operator.schema import join_row_types, to_java_row_type
from headrace.operator.streams import environment_of, input_stream, output_of

__all__ = ["plan_scoring"]


def plan_scoring(
    rows: Table | DataStream,
    *,
    name: str,
    outputs: Mapping[str, Any],
    error_column: str | None,
    version_column: str | None,
    has_side: bool,
    keep: Sequence[str] | None,
    parallelism: int | None,
    timeouts: TimeoutConfig,
    role: Callable[[tuple[str, ...], int], RoleConfig],
) -> Table | DataStream | tuple[Table | DataStream, Table | DataStream]:
    """Add one chained role to the job of `rows`; return its rows, a Table or a DataStream.

    Args:
        rows: What to score.
        name: Name of the role.
        outputs: Columns that are new, name to `DataTypes`.
        error_column: Name of one more, of text; None without one.
        version_column: Name of one more, of moments; None without one.
        has_side: Whether rows with an error leave the others: they are then returned as well,
            with all columns of `rows` and the error, and the others without it.
        keep: Columns of `rows` that pass through; None: all.
        parallelism: How many workers; None: as many as the environment has by default.
        timeouts: Limits on every wait.
        role: Returns what the workers run, for the columns that pass through, and how many
            workers there are.

    Raises:
        PlanError: `rows` cannot go into a role, or lacks a column.
    """
    flink = open_environment(environment_of(rows))
    flink.apply_table_options()
    j_rows = input_stream(flink, name, rows)
    names = list(j_rows[1].getFieldNames())
    kept = _kept(names, keep)
    config = role(
        tuple(names) if has_side else kept, parallelism or flink.env.get_parallelism()
    )
    error = {} if error_column is None else {error_column: DataTypes.STRING()}
    version = {} if version_column is None else {version_column: DataTypes.TIMESTAMP_LTZ(3)}
    j_new = to_java_row_type(
        {**(_nullable(outputs) if has_side else outputs), **error, **version}
    )
    j_output = join_row_types(j_rows[1], names if has_side else kept, j_new)
    j_stream = add_chained(flink, name, config, j_rows, j_output, timeouts)
    is_stream = isinstance(rows, DataStream)
    if not has_side:
        return output_of(flink, j_stream, j_output, is_stream=is_stream)
    j_scored = join_row_types(j_rows[1], kept, to_java_row_type({**outputs, **version}))
    j_rejected = join_row_types(j_rows[1], names, to_java_row_type(error))
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    j_streams = builder.divide(j_stream, j_output, error_column, j_scored, j_rejected)
    return (
        output_of(flink, j_streams[0], j_scored, is_stream=is_stream),
        output_of(flink, j_streams[1], j_rejected, is_stream=is_stream),
    )


def _kept(names: list[str], keep: Sequence[str] | None) -> tuple[str, ...]:
    if isinstance(keep, str):
        msg = f"keep={keep!r} must be a list of column names, for example [{keep!r}]"
        raise PlanError(msg)
    kept = tuple(names if keep is None else keep)
    missing = [each for each in kept if each not in names]
    if missing:
        msg = f"keep: there is no column {', '.join(missing)}; the rows have {', '.join(names)}"
        raise PlanError(msg)
    return kept


def _nullable(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Return declared columns as they are before the rows without values have left."""
    return {
        name: kind.nullable() if hasattr(kind, "nullable") else kind
        for name, kind in columns.items()
    }
