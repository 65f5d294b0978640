"""How old single rows are when they come out of a pipeline, at an even pace."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import Table

from benchmarks.pipelines import Column, open_t_env

__all__ = ["ages_ms"]

_PER_SECOND = 1000


def ages_ms(
    pipeline: Callable[[Table], Table], columns: Sequence[Column], rows: int, jar: Path
) -> dict[str, float]:
    """Return percentiles of the age of rows at 1,000 rows/s, in ms; the first half is left out.

    Source and probe read the clock of one JVM.

    Args:
        pipeline: Returns the rows that come out, with `id` as their first column, of those that
            go in: `id`, which is the stamp of the source, and `columns`.
        columns: Computed from `id`.
        rows: How many.
        jar: What `build_probe_jar` returned; the ages are written beside it.
    """
    t_env = open_t_env()
    env = StreamExecutionEnvironment(t_env._j_tenv.execEnv())  # noqa: SLF001 - no public way
    env.add_jars(jar.as_uri())
    jvm = get_gateway().jvm
    probes = jvm.org.headrace.benchmarks.RoundTrips
    j_stamps = probes.stamps(env._j_stream_execution_environment, rows, float(_PER_SECOND))  # noqa: SLF001
    t_env.create_temporary_view("ids", t_env.from_data_stream(DataStream(j_stamps)).alias("id"))
    features = ", ".join(f"{column.expression} AS {column.name}" for column in columns)
    out = pipeline(t_env.sql_query(f"SELECT id, {features} FROM ids"))  # noqa: S608 - own text
    to_row_data = jvm.org.headrace.operator.ClusterBuilder.toRowData
    path = jar.with_name("ages")
    probes.probe(to_row_data(t_env._j_tenv, out._j_table), str(path))  # noqa: SLF001
    env.execute("ages")
    lines = path.with_name(f"{path.name}0").read_text().splitlines()
    ages = [int(line.split()[1]) / 1e6 for line in lines]
    assert len(ages) == rows, (len(ages), rows)
    kept = ages[rows // 2 :]  # the process has started, and the backlog of its start is gone
    percentiles = quantiles(kept, n=100)
    return {"p50": percentiles[49], "p99": percentiles[98], "max": max(kept)}
