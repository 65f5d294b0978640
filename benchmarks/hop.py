"""Rows/s from Flink into a process, against the same topology without Python.

16 FLOAT columns, one task. Two kinds of rows, since what the hop may cost depends on what a row
costs to make: `bare` columns are a cast and an addition each (a row is made in some 60 ns, and
the discarding sink of the ceiling does not even look at it); `feature` columns are a sine each,
which is what a cheap computed feature costs. Variants, with equal topology in pairs:

- `chained ceiling`: source -> discarding sink, chained.
- `chained`: source -> role without master, chained; the process sums one column of each batch.
- `control ceiling`: source -> flat-map role with a control stream whose process returns at
  once, so that the operator discards the rows.
- `control`: the same role with a process that sums one column of each batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from pyflink.table import DataTypes

from benchmarks.pipelines import (
    Column,
    float_columns,
    marginal_rate,
    open_t_env,
    rows_of,
    run_to_nowhere,
    sql_columns,
)
from benchmarks.report import at_least, parse_options, spread, write_result
from headrace import Cluster, RoleConfig
from headrace.operator import chained_role

_COLUMNS = 16
_BAR = 0.85
_SUM = {"total": DataTypes.DOUBLE()}
_FORMS = ("chained", "control")


def run_hop(
    rows: dict[str, tuple[int, int]], *, repeats: int, warm_ups: int = 1
) -> dict[str, Any]:
    """Measure every variant in turns; return rates in Mrows/s, ratios and bars.

    Args:
        rows: Rows of the smaller and the larger run of each kind of rows.
        repeats: Turns that count.
        warm_ups: Turns before them.
    """
    rates: dict[str, list[float]] = {}
    for turn in range(warm_ups + repeats):
        for kind, (few, many) in rows.items():
            for name, variant in _variants(_KINDS[kind]).items():
                rate = marginal_rate(variant, few, many) / 1e6
                print(f"turn {turn}: {kind}, {name}: {rate:.2f} Mrows/s", flush=True)
                if turn >= warm_ups:
                    rates.setdefault(f"{kind}, {name}", []).append(rate)
    ratios = {
        f"{kind}, {form} / ceiling": [
            reached / ceiling
            for reached, ceiling in zip(
                rates[f"{kind}, {form}"], rates[f"{kind}, {form} ceiling"], strict=True
            )
        ]
        for kind in rows
        for form in _FORMS
    }
    return {
        "rows": rows,
        "columns": _COLUMNS,
        "repeats": repeats,
        "mrows_per_s": {name: spread(values) for name, values in rates.items()},
        "ratios": {name: spread(values) for name, values in ratios.items()},
        "bars": {
            name: at_least(spread(values)["median"], _BAR) for name, values in ratios.items()
        },
    }


def _feature_columns() -> list[Column]:
    return [
        Column(name=f"f{i}", type="FLOAT", expression=f"CAST(SIN(id + {i}) AS FLOAT)")
        for i in range(_COLUMNS)
    ]


_KINDS = {"bare": float_columns(_COLUMNS), "feature": _feature_columns()}


def _variants(columns: list[Column]) -> dict[str, Callable[[int], float]]:
    return {
        "chained ceiling": partial(_chained_ceiling, columns),
        "chained": partial(_chained, columns),
        "control ceiling": partial(_control, columns, _leave),
        "control": partial(_control, columns, _sum_up),
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


def _chained_ceiling(columns: list[Column], rows: int) -> float:
    t_env = open_t_env()
    return run_to_nowhere(t_env, rows_of(t_env, columns, rows), sql_columns(columns))


def _chained(columns: list[Column], rows: int) -> float:
    t_env = open_t_env()
    table = rows_of(t_env, columns, rows)
    totals = chained_role("sum", RoleConfig(entry=_sum_up), input=table, output=_SUM)
    return run_to_nowhere(t_env, totals, "total DOUBLE")


def _control(columns: list[Column], entry: Callable[[Any], None], rows: int) -> float:
    t_env = open_t_env()
    cluster = Cluster(t_env, name="hop")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry), input=rows_of(t_env, columns, rows))
    return cluster.submit().wait(show_progress=False).duration_s


def main(arguments: list[str] | None = None) -> None:
    """Measure and write hop.json."""
    options = parse_options("hop", arguments)
    if options.smoke:
        figures = run_hop({"bare": (10_000, 60_000)}, repeats=1, warm_ups=0)
    else:
        rows = {"bare": (4_000_000, 24_000_000), "feature": (1_000_000, 9_000_000)}
        figures = run_hop(rows, repeats=5)
    print(write_result("hop", figures, options.results).read_text())


if __name__ == "__main__":
    main(sys.argv[1:])
