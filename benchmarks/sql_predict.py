"""Rows/s of `ML_PREDICT` through the model provider, against `predict` over the same rows.

The MLP of `benchmarks.scoring` on 16 FLOAT columns, one thread; the columns pass through on
both sides. Flink hands a model function row by row, as many as its setting for rows in flight
says: a variant for each value of it. Row by row is the same provider with batches of one row,
with the most rows in flight, and with one. Rates are marginal; variants run in turns.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
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
from benchmarks.scored_models import save_model
from headrace.pytorch import TorchModel, predict

_COLUMNS = float_columns(16)
_NAMES = [column.name for column in _COLUMNS]
_IN_FLIGHT = (10, 1024, 4096, 16384)
_BATCH_ROWS = 1024
_SETTING = "table.exec.async-ml-predict.max-concurrent-operations"


def run_sql_predict(
    rows: tuple[int, int],
    single_rows: tuple[int, int],
    *,
    in_flight: Sequence[int],
    repeats: int,
    warm_ups: int,
) -> dict[str, Any]:
    """Measure rates; return figures and bars.

    Args:
        rows: Rows of the smaller and the larger run.
        single_rows: The same for the variants that are slow.
        in_flight: Rows in flight, a variant for each.
        repeats: Turns that count.
        warm_ups: Turns before them.
    """
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-sql-predict-") as folder:
        model = save_model("mlp", Path(folder))
        variants: dict[str, Callable[[], float]] = {
            "predict": partial(marginal_rate, partial(_predict, model), *rows)
        }
        for each in in_flight:
            run = partial(_ml_predict, model, each, _BATCH_ROWS)
            sizes = rows if each >= _BATCH_ROWS else single_rows
            variants[f"{each} in flight"] = partial(marginal_rate, run, *sizes)
        for name, each in (("row by row", max(in_flight)), ("row by row, 1 in flight", 1)):
            run = partial(_ml_predict, model, each, 1)
            variants[name] = partial(marginal_rate, run, *single_rows)
        for turn in range(-warm_ups, repeats):
            for name, measure in variants.items():
                rate = measure()
                print(f"turn {turn}: {name}: {rate:,.0f} rows/s", flush=True)
                if turn >= 0:
                    rates.setdefault(name, []).append(rate)
    spreads = {name: report.spread(values) for name, values in rates.items()}
    best = max(spreads[f"{each} in flight"]["median"] for each in in_flight)
    return {
        "repeats": repeats,
        "rows": {"predict": rows, "row by row": single_rows},
        "rows_per_s": spreads,
        "best_over": {name: best / rate["median"] for name, rate in spreads.items()},
        "bars": {
            "ML_PREDICT / row by row": report.at_least(
                best / spreads["row by row"]["median"], 20.0
            )
        },
    }


def _predict(model: Path, rows: int) -> float:
    t_env = open_t_env()
    scored = predict(
        rows_of(t_env, _COLUMNS, rows),
        TorchModel(model),
        inputs=_NAMES,
        outputs={"y": DataTypes.FLOAT()},
        batch_rows=_BATCH_ROWS,
        threads=1,
    )
    return run_to_nowhere(t_env, scored, f"{sql_columns(_COLUMNS)}, y FLOAT")


def _ml_predict(model: Path, in_flight: int, batch_rows: int, rows: int) -> float:
    t_env = open_t_env()
    headrace.sql.add_jars(t_env)
    t_env.get_config().set(_SETTING, str(in_flight))
    columns = sql_columns(_COLUMNS)
    t_env.execute_sql(
        f"CREATE MODEL mlp INPUT ({columns}) OUTPUT (y FLOAT) WITH ('provider' = 'headrace', "
        f"'framework' = 'pytorch', 'path' = '{model}', 'batch-rows' = '{batch_rows}', "
        "'threads' = '1')"
    )
    t_env.create_temporary_view("features", rows_of(t_env, _COLUMNS, rows))
    scored = t_env.sql_query(
        "SELECT * FROM ML_PREDICT(TABLE features, MODEL mlp, "  # noqa: S608 - own text
        f"DESCRIPTOR({', '.join(_NAMES)}))"
    )
    return run_to_nowhere(t_env, scored, f"{columns}, y FLOAT")


def main(arguments: list[str] | None = None) -> None:
    """Measure and write sql_predict.json."""
    options = report.parse_options("sql_predict", arguments)
    use_worker_processes()
    if options.smoke:
        figures = run_sql_predict(
            (1_024, 4_096), (100, 400), in_flight=(4096,), repeats=1, warm_ups=0
        )
    else:
        sizes = (204_800, 1_228_800), (5_000, 30_000)
        figures = run_sql_predict(*sizes, in_flight=_IN_FLIGHT, repeats=3, warm_ups=1)
    print(report.write_result("sql_predict", figures, options.results).read_text())


if __name__ == "__main__":
    main()
