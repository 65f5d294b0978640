"""A role without master, chained to its input: for processes that need not know each other."""

from __future__ import annotations

from typing import Any

from pyflink.datastream import DataStream
from pyflink.java_gateway import get_gateway
from pyflink.table import Table

from headrace.config import RoleConfig, TimeoutConfig
from headrace.errors import PlanError
from headrace.operator.environment import FlinkEnvironment, open_environment
from headrace.operator.failure import cause_text
from headrace.operator.plan import cluster_document, role_document, role_payload
from headrace.operator.schema import OutputSchema, to_java_row_type
from headrace.operator.streams import environment_of, input_stream, output_of

__all__ = ["add_chained", "chained_role"]

_UID_PREFIX = "headrace/chained"  # no cluster's name has a slash


def chained_role(
    name: str,
    config: RoleConfig,
    *,
    input: Table | DataStream,  # noqa: A002 - Flink's word
    output: OutputSchema,
    timeouts: TimeoutConfig | None = None,
) -> Table | DataStream:
    """Run `config.entry` over `input` in processes that work alone: no master, no group.

    The operator is chained to its input where Flink can chain it, which saves the network
    between the two. A process that fails fails the Flink task, and Flink's restart strategy
    decides.

    Args:
        name: Name of the role; part of the operator's uid, so unique in a job.
        config: What the processes run.
        input: Rows for them, insert-only.
        output: Columns that they emit, name to `DataTypes`.
        timeouts: Limits on every wait, in seconds.

    Returns:
        What the processes emit, a Table or DataStream as `input` is; order within a subtask is
        theirs.

    Raises:
        PlanError: `input` is no Table or DataStream; and as `Cluster.add_role`.
    """
    flink = open_environment(environment_of(input))
    flink.apply_table_options()
    j_rows = input_stream(flink, name, input)
    j_output = to_java_row_type(output)
    j_stream = add_chained(flink, name, config, j_rows, j_output, timeouts or TimeoutConfig())
    return output_of(flink, j_stream, j_output, is_stream=isinstance(input, DataStream))


def add_chained(
    flink: FlinkEnvironment,
    name: str,
    config: RoleConfig,
    j_rows: tuple[Any, Any],
    j_output: Any,
    timeouts: TimeoutConfig,
) -> Any:
    """Add the operator of a chained role; return the Java stream of what it emits.

    Args:
        flink: Where the job is planned.
        name: As `chained_role`.
        config: As `chained_role`.
        j_rows: What `input_stream` returned.
        j_output: `RowType` of what the processes emit.
        timeouts: Limits on every wait.

    Raises:
        PlanError: As `Cluster.add_role`.
    """
    j_input, j_input_type = j_rows
    payload = role_payload(name, config)
    role = role_document(name, config, timeouts, None)
    cluster = cluster_document(
        name, uid_prefix=_UID_PREFIX, timeouts=timeouts, python_path=flink.python_path()
    )
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    try:
        return builder.addChained(j_input, role, payload, cluster, j_input_type, j_output)
    except Exception as exc:
        msg = f"role {name!r} cannot be planned: {cause_text(exc)}"
        raise PlanError(msg) from exc
