"""Flink pipelines that the scripts measure: rows are generated, handled, discarded."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors.number_seq import NumberSequenceSource
from pyflink.table import StreamTableEnvironment, Table

from headrace import JobHandle
from headrace.errors import JobFailedError

__all__ = [
    "Column",
    "cancel",
    "endless_numbers",
    "float_columns",
    "float_list",
    "marginal_rate",
    "open_restarting",
    "open_t_env",
    "rows_of",
    "run_to_nowhere",
    "sql_columns",
    "use_worker_processes",
]


_RESTARTING = {
    "execution.checkpointing.interval": "500 ms",
    "execution.checkpointing.tolerable-failed-checkpoints": "100000",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "100000",
    "restart-strategy.fixed-delay.delay": "100 ms",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A generated column.

    Attributes:
        name: Its name.
        type: Its SQL type.
        expression: SQL over `id`, a BIGINT that counts from 1.
    """

    name: str
    type: str
    expression: str


def float_columns(count: int) -> list[Column]:
    """Return FLOAT columns with other values in every row."""
    return [
        Column(name=f"f{i}", type="FLOAT", expression=f"CAST(id AS FLOAT) + {i}")
        for i in range(count)
    ]


def float_list(length: int) -> Column:
    """Return an ARRAY<FLOAT> column with other values in every row."""
    values = ", ".join(f"CAST(id AS FLOAT) + {i}" for i in range(length))
    return Column(name="x", type="ARRAY<FLOAT>", expression=f"ARRAY[{values}]")


def use_worker_processes() -> None:
    """Make PyFlink run Python UDFs in processes of their own, as a cluster does.

    By default the embedded cluster runs them in threads of this program. Call it before the
    first environment is made.
    """
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112, TID251 (its name)


def open_t_env(
    parallelism: int = 1, options: Mapping[str, str] | None = None
) -> StreamTableEnvironment:
    """Return a new streaming table environment that reuses objects.

    Args:
        parallelism: Of each operator, where nothing else is said.
        options: Flink's, those of the embedded cluster among them.
    """
    configuration = Configuration()
    for key, value in (options or {}).items():
        configuration.set_string(key, value)
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.set_parallelism(parallelism)
    t_env = StreamTableEnvironment.create(env)
    for key, value in {"pipeline.object-reuse": "true", **(options or {})}.items():
        t_env.get_config().set(key, value)
    return t_env


def open_restarting(folder: Path) -> StreamTableEnvironment:
    """Return an environment of jobs that make checkpoints often and restart at once, for ever.

    Args:
        folder: Gets the checkpoints.
    """
    t_env = open_t_env()
    for key, value in _RESTARTING.items():
        t_env.get_config().set(key, value)
    t_env.get_config().set("execution.checkpointing.dir", (folder / "cp").as_uri())
    return t_env


def endless_numbers(t_env: StreamTableEnvironment, rows_per_s: int) -> Table:
    """Return a table `numbers` of one BIGINT column `id`, 0 to 1,000, from one source."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.min'='0', 'fields.id.max'='1000', 'scan.parallelism'='1', "
        f"'rows-per-second'='{rows_per_s}')"
    )
    return t_env.from_path("numbers")


def cancel(job: JobHandle, *, limit_s: float) -> None:
    """Cancel a job and wait for its end."""
    job.cancel()
    with suppress(JobFailedError):  # that is how a cancelled job ends
        job.wait(show_progress=False, timeout_s=limit_s)


def rows_of(t_env: StreamTableEnvironment, columns: Sequence[Column], rows: int) -> Table:
    """Return a bounded table of `rows` generated rows."""
    env = StreamExecutionEnvironment(t_env._j_tenv.execEnv())  # noqa: SLF001 - no public way
    ids = env.from_source(
        NumberSequenceSource(1, rows), WatermarkStrategy.no_watermarks(), "ids", Types.LONG()
    )
    t_env.create_temporary_view("ids", t_env.from_data_stream(ids).alias("id"))
    selected = ", ".join(f"{column.expression} AS {column.name}" for column in columns)
    return t_env.sql_query(f"SELECT {selected} FROM ids")  # noqa: S608 - own text


def run_to_nowhere(t_env: StreamTableEnvironment, table: Table, columns: str) -> float:
    """Send `table` to a discarding sink; return Flink's run time of the job in seconds.

    Args:
        t_env: Where `table` was made.
        table: What to compute.
        columns: SQL names and types of its columns.
    """
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE nowhere ({columns}) WITH ('connector'='blackhole')"
    )
    client = table.execute_insert("nowhere").get_job_client()
    assert client is not None
    return float(client.get_job_execution_result().result().get_net_runtime()) / 1000.0


def marginal_rate(run: Callable[[int], float], few: int, many: int) -> float:
    """Return rows/s between two sizes of a run, so that what a start costs drops out.

    If the larger run was no slower than the smaller one, something else has hit the smaller
    one; the rate of the larger run as a whole is returned then, which is too low.

    Args:
        run: Runs with a number of rows; returns seconds.
        few: Rows of the smaller run.
        many: Rows of the larger one.
    """
    few_s, many_s = run(few), run(many)
    if many_s <= few_s:
        return many / many_s
    return (many - few) / (many_s - few_s)


def sql_columns(columns: Sequence[Column]) -> str:
    """Return names and types of columns as in CREATE TABLE."""
    return ", ".join(f"{column.name} {column.type}" for column in columns)
