"""Plans the scoring of a table or stream, for every framework."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyflink.datastream import DataStream
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
    keep: Sequence[str] | None,
    parallelism: int | None,
    timeouts: TimeoutConfig,
    role: Callable[[tuple[str, ...], int], RoleConfig],
) -> Table | DataStream:
    """Add one chained role to the job of `rows`; return its rows, a Table or a DataStream.

    Args:
        rows: What to score.
        name: Name of the role.
        outputs: Columns that are new, name to `DataTypes`.
        error_column: Name of one more, of text; None without one.
        version_column: Name of one more, of moments; None without one.
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
    if isinstance(keep, str):
        msg = f"keep={keep!r} must be a list of column names, for example [{keep!r}]"
        raise PlanError(msg)
    kept = tuple(names if keep is None else keep)
    missing = [each for each in kept if each not in names]
    if missing:
        msg = f"keep: there is no column {', '.join(missing)}; the rows have {', '.join(names)}"
        raise PlanError(msg)
    config = role(kept, parallelism or flink.env.get_parallelism())
    new = dict(outputs)
    if error_column is not None:
        new[error_column] = DataTypes.STRING()
    if version_column is not None:
        new[version_column] = DataTypes.TIMESTAMP_LTZ(3)
    j_output = join_row_types(j_rows[1], kept, to_java_row_type(new))
    j_stream = add_chained(flink, name, config, j_rows, j_output, timeouts)
    return output_of(flink, j_stream, j_output, is_stream=isinstance(rows, DataStream))
