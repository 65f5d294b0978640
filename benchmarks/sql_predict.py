"""Rows/s of `ML_PREDICT` through the model provider, against `predict` over the same rows.

16 FLOAT columns go in and one comes out, of a Python function that returns the first. Flink
hands a model function row by row, as many as its setting for rows in flight says: a variant for
each value of it. The columns that go in pass through on both sides. Rates are marginal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from pyflink.table import DataTypes

import headrace.sql
from benchmarks import report
from benchmarks.pipelines import (
    float_columns,
    marginal_rate,
    open_t_env,
    rows_of,
    run_to_nowhere,
    sql_columns,
    use_worker_processes,
)
from headrace.inference import PythonModel, predict

_COLUMNS = float_columns(16)
_IN_FLIGHT = (10, 1024, 4096, 16384)
_BATCH_ROWS = 1024
_SETTING = "table.exec.async-ml-predict.max-concurrent-operations"


def first_column() -> Callable[[Any], Any]:
    """Return the model: its score is the first column."""
    return lambda columns: columns["f0"]


def run_sql_predict(
    rows: tuple[int, int], rows_of_ten: tuple[int, int], *, repeats: int, warm_ups: int
) -> dict[str, Any]:
    """Measure rates; return figures."""
    variants: dict[str, Callable[[], float]] = {
        "predict": lambda: marginal_rate(_predict, *rows),
    }
    for in_flight in _IN_FLIGHT:
        sizes = rows_of_ten if in_flight == min(_IN_FLIGHT) else rows
        variants[f"{in_flight} in flight"] = partial(
            marginal_rate, partial(_ml_predict, in_flight), *sizes
        )
    rates: dict[str, list[float]] = {name: [] for name in variants}
    for repeat in range(-warm_ups, repeats):
        for name, measure in variants.items():
            rate = measure()
            print(f"repeat {repeat}: {name}: {rate:,.0f} rows/s", flush=True)
            if repeat >= 0:
                rates[name].append(rate)
    spreads = {name: report.spread(values) for name, values in rates.items()}
    whole = spreads["predict"]["median"]
    return {
        "rows_per_s": spreads,
        "over_predict": {name: rate["median"] / whole for name, rate in spreads.items()},
    }


def _predict(rows: int) -> float:
    t_env = open_t_env()
    scored = predict(
        rows_of(t_env, _COLUMNS, rows),
        PythonModel(first_column),
        outputs={"y": DataTypes.FLOAT()},
        batch_rows=_BATCH_ROWS,
    )
    return run_to_nowhere(t_env, scored, f"{sql_columns(_COLUMNS)}, y FLOAT")


def _ml_predict(in_flight: int, rows: int) -> float:
    t_env = open_t_env()
    headrace.sql.add_jars(t_env)
    t_env.get_config().set(_SETTING, str(in_flight))
    columns = sql_columns(_COLUMNS)
    t_env.execute_sql(
        f"CREATE MODEL first_column INPUT ({columns}) OUTPUT (y FLOAT) WITH "
        "('provider' = 'headrace', 'framework' = 'python', 'factory' = "
        f"'benchmarks.sql_predict:first_column', 'batch-rows' = '{_BATCH_ROWS}')"
    )
    t_env.create_temporary_view("features", rows_of(t_env, _COLUMNS, rows))
    names = ", ".join(column.name for column in _COLUMNS)
    scored = t_env.sql_query(
        "SELECT * FROM ML_PREDICT(TABLE features, MODEL first_column, "  # noqa: S608 - own text
        f"DESCRIPTOR({names}))"
    )
    return run_to_nowhere(t_env, scored, f"{columns}, y FLOAT")


def main() -> None:
    """Measure and print the figures; nothing is promised, so no file keeps them."""
    use_worker_processes()
    figures = run_sql_predict((200_000, 2_200_000), (5_000, 55_000), repeats=3, warm_ups=1)
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
