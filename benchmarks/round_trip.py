"""Rows out of Flink, through a process and back: rows/s, and how long one row takes.

- Rows/s of an identity over 16 FLOAT columns, marginal: a role without master that emits each
  batch as it came, against PyFlink's vectorised `map` that returns the data frame it got, and
  against the same pipeline without Python.
- The age of single rows at 1,000 rows/s and `linger_ms` 0: a source stamps each row at an even
  pace, the process emits it, a probe behind it looks at the stamp. Both read the clock of one
  JVM; all operators are chained in one task. The first rows are left out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pyflink.table import DataTypes, Table
from pyflink.table.udf import udf

from benchmarks import report
from benchmarks.ages import ages_ms
from benchmarks.java_probe import build_probe_jar
from benchmarks.pipelines import (
    float_columns,
    marginal_rate,
    open_t_env,
    rows_of,
    run_to_nowhere,
    sql_columns,
    use_worker_processes,
)
from headrace import ExchangeConfig, RoleConfig
from headrace.operator import chained_role

_COLUMNS = float_columns(16)
_TYPES = {column.name: DataTypes.FLOAT() for column in _COLUMNS}


def run_round_trip(
    rows: tuple[int, int],
    pandas_rows: tuple[int, int],
    *,
    latency_rows: int,
    repeats: int,
    warm_ups: int,
) -> dict[str, Any]:
    """Measure rates and ages; return figures and bars."""
    variants: dict[str, Callable[[], float]] = {
        "ceiling": lambda: marginal_rate(_ceiling, *rows),
        "headrace": lambda: marginal_rate(_headrace, *rows),
        "pandas UDF": lambda: marginal_rate(_pandas_udf, *pandas_rows),
    }
    rates: dict[str, list[float]] = {name: [] for name in variants}
    ages_us: dict[str, list[float]] = {"p50": [], "p99": [], "max": []}
    with tempfile.TemporaryDirectory(prefix="headrace-round-trip-") as folder:
        jar = build_probe_jar(Path(folder))
        for repeat in range(-warm_ups, repeats):
            for name, measure in variants.items():
                rate = measure()
                print(f"repeat {repeat}: {name}: {rate:,.0f} rows/s", flush=True)
                if repeat >= 0:
                    rates[name].append(rate)
            for name, age_ms in ages_ms(_echoed, _COLUMNS, latency_rows, jar).items():
                print(f"repeat {repeat}: age {name}: {age_ms * 1e3:.0f} us", flush=True)
                if repeat >= 0:
                    ages_us[name].append(age_ms * 1e3)
    spreads = {name: report.spread(values) for name, values in rates.items()}
    ages = {name: report.spread(values) for name, values in ages_us.items()}
    headrace = spreads["headrace"]["median"]
    return {
        "repeats": repeats,
        "rows": {"headrace": rows, "pandas UDF": pandas_rows, "age": latency_rows},
        "rows_per_s": spreads,
        "headrace_over": {name: headrace / rate["median"] for name, rate in spreads.items()},
        "age_us_at_1000_rows_per_s": ages,
        "bars": {
            "identity: headrace / pandas UDF": report.at_least(
                headrace / spreads["pandas UDF"]["median"], 2.0
            ),
            "single row, p50 in ms": report.at_most(ages["p50"]["median"] / 1e3, 1.0),
            "single row, p99 in ms": report.at_most(ages["p99"]["median"] / 1e3, 5.0),
        },
    }


def _ceiling(rows: int) -> float:
    t_env = open_t_env()
    return run_to_nowhere(t_env, rows_of(t_env, _COLUMNS, rows), sql_columns(_COLUMNS))


def _headrace(rows: int) -> float:
    t_env = open_t_env()
    table = rows_of(t_env, _COLUMNS, rows)
    echoed = chained_role("echo", RoleConfig(entry=_echo), input=table, output=_TYPES)
    return run_to_nowhere(t_env, echoed, sql_columns(_COLUMNS))


def _echo(ctx: Any) -> None:
    for batch in ctx.arrow_batches(rows=4096):
        ctx.emit(batch)


def _echo_row(ctx: Any) -> None:
    for row in ctx.arrow_batches(rows=1):
        ctx.emit(row)


def _pandas_udf(rows: int) -> float:
    t_env = open_t_env()
    fields = [DataTypes.FIELD(name, type_) for name, type_ in _TYPES.items()]
    echo = udf(lambda frame: frame, result_type=DataTypes.ROW(fields), func_type="pandas")
    echoed = rows_of(t_env, _COLUMNS, rows).map(echo)
    return run_to_nowhere(t_env, echoed, sql_columns(_COLUMNS))


def _echoed(table: Table) -> Table:
    echoed = chained_role(
        "echo",
        RoleConfig(entry=_echo_row, exchange=ExchangeConfig(linger_ms=0)),
        input=table,
        output={"id": DataTypes.BIGINT(), **_TYPES},
    )
    assert isinstance(echoed, Table)
    return echoed


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("round_trip", arguments)
    use_worker_processes()
    if options.smoke:
        figures = run_round_trip(
            (1_000, 20_000), (100, 1_000), latency_rows=500, repeats=1, warm_ups=0
        )
    else:
        figures = run_round_trip(
            (1_000_000, 8_000_000),
            (100_000, 500_000),
            latency_rows=8_000,
            repeats=3,
            warm_ups=1,
        )
    print(report.write_result("round_trip", figures, options.results).read_text())


if __name__ == "__main__":
    main()
