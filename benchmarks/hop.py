"""Rows/s from Flink into a process: 16 FLOAT columns, one task.

Every variant reads the same generated rows. Variants without Python have the same topology:

- `chained ceiling`: source -> discarding sink, chained.
- `chained`: source -> role without master, chained; the process sums one column of each batch.
- `control ceiling`: source -> flat-map role with a control stream whose process returns at
  once, so that the operator discards the rows.
- `control`: the same role with a process that sums one column of each batch.
- `pandas UDF`: source -> PyFlink pandas UDF of all columns -> discarding sink.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from pyflink.common import Types, WatermarkStrategy
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors.number_seq import NumberSequenceSource
from pyflink.table import DataTypes, StreamTableEnvironment, Table
from pyflink.table.udf import udf

from benchmarks.report import spread, write_result
from headrace import Cluster, RoleConfig
from headrace.operator import chained_role

COLUMNS = 16
_SUM = {"total": DataTypes.DOUBLE()}


def run_hop(rows: tuple[int, int], repeats: int) -> dict[str, Any]:
    """Measure every variant; return rates in Mrows/s and ratios."""
    variants: dict[str, Callable[[int], float]] = {
        "chained ceiling": _chained_ceiling,
        "chained": _chained,
        "control ceiling": lambda count: _control(count, _leave),
        "control": lambda count: _control(count, _sum_up),
        "pandas UDF": _pandas_udf,
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(repeats + 1):
        for name, variant in variants.items():
            few, many = rows if name != "pandas UDF" else (rows[0] // 4, rows[1] // 4)
            rate = (many - few) / (variant(many) - variant(few)) / 1e6
            print(f"repeat {repeat}: {name}: {rate:.2f} Mrows/s", flush=True)
            if repeat:  # the first one warms up
                rates[name].append(rate)
    medians = {name: spread(values)["median"] for name, values in rates.items()}
    return {
        "rows": rows,
        "columns": COLUMNS,
        "repeats": repeats,
        "mrows_per_s": {name: spread(values) for name, values in rates.items()},
        "ratios": {
            "chained / ceiling": medians["chained"] / medians["chained ceiling"],
            "control / ceiling": medians["control"] / medians["control ceiling"],
            "chained / pandas UDF": medians["chained"] / medians["pandas UDF"],
        },
    }


def _leave(_: Any) -> None:
    return None


def _sum_up(ctx: Any) -> None:
    total = 0.0
    for batch in ctx.arrow_batches(rows=4096):
        total += float(batch.column(0).to_numpy().sum())
    if ctx.output_schema is not None:
        ctx.emit({"total": [total]})
    ctx.report(total=total)


def _source(rows: int) -> tuple[StreamTableEnvironment, Table]:
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    t_env = StreamTableEnvironment.create(env)
    t_env.get_config().set("pipeline.object-reuse", "true")
    ids = env.from_source(
        NumberSequenceSource(1, rows), WatermarkStrategy.no_watermarks(), "ids", Types.LONG()
    )
    t_env.create_temporary_view("ids", t_env.from_data_stream(ids).alias("id"))
    columns = ", ".join(f"CAST(id AS FLOAT) + {i} AS f{i}" for i in range(COLUMNS))
    return t_env, t_env.sql_query(f"SELECT {columns} FROM ids")  # noqa: S608 - own text


def _discard_s(t_env: StreamTableEnvironment, table: Table, columns: str) -> float:
    """Send the table to a discarding sink and return Flink's run time in seconds."""
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE nowhere ({columns}) WITH ('connector'='blackhole')"
    )
    client = table.execute_insert("nowhere").get_job_client()
    assert client is not None
    return float(client.get_job_execution_result().result().get_net_runtime()) / 1000.0


def _all_columns() -> str:
    return ", ".join(f"f{i} FLOAT" for i in range(COLUMNS))


def _chained_ceiling(rows: int) -> float:
    t_env, table = _source(rows)
    return _discard_s(t_env, table, _all_columns())


def _chained(rows: int) -> float:
    t_env, table = _source(rows)
    totals = chained_role("sum", RoleConfig(entry=_sum_up), input=table, output=_SUM)
    return _discard_s(t_env, totals, "total DOUBLE")


def _control(rows: int, entry: Callable[[Any], None]) -> float:
    t_env, table = _source(rows)
    cluster = Cluster(t_env, name="hop")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry), input=table)
    return cluster.submit().wait(show_progress=False).duration_s


def _pandas_udf(rows: int) -> float:
    t_env, table = _source(rows)

    @udf(result_type=DataTypes.FLOAT(), func_type="pandas")
    def first_of(*columns: Any) -> Any:
        return columns[0]

    t_env.create_temporary_function("first_of", first_of)
    arguments = ", ".join(f"f{i}" for i in range(COLUMNS))
    t_env.create_temporary_view("features", table)
    result = t_env.sql_query(f"SELECT first_of({arguments}) AS f0 FROM features")  # noqa: S608
    return _discard_s(t_env, result, "f0 FLOAT")


def main() -> None:
    """Measure and write benchmarks/results/hop.json."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hop")
    parser.add_argument("--rows", type=int, nargs=2, default=(4_000_000, 24_000_000))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    path = write_result("hop", run_hop(tuple(options.rows), options.repeats))
    print(path.read_text())


if __name__ == "__main__":
    main()
