"""Rows/s of `predict`, against the same model called in other ways.

- `identity`: 16 FLOAT columns in, one out, no model to speak of: what the way to the process
  and back costs. Against PyFlink's pandas UDF and row UDF.
- `mlp` (16-256-256-1, 4096 rows in a call) and `cnn` (two convolutions on (rows, 784), 1024
  rows), TorchScript, one thread: against a loop that calls the same model on batches in memory,
  in a process of its own with the memory settings that a worker has, and (`plain`) without; and
  against the same model in a pandas UDF. Where HEADRACE_ELSEWHERE names an interpreter that has
  ray and pyspark, also in Ray Data's `map_batches` and Spark's `predict_batch_udf`.

Rates are marginal; variants run in turns, and in each a loop in memory and `predict` several
times right after each other.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pyflink.table import DataTypes, Table
from pyflink.table.udf import udf

from benchmarks import report
from benchmarks.pipelines import (
    Column,
    float_columns,
    float_list,
    marginal_rate,
    open_t_env,
    rows_of,
    run_to_nowhere,
    use_worker_processes,
)
from benchmarks.scored_models import BATCH_ROWS, WIDTHS, build_model, save_model
from headrace.inference.scoring_role import KEEP_MEMORY
from headrace.pytorch import PythonModel, TorchModel, predict

_NUMBERS = float_columns(16)
_NAMES = [column.name for column in _NUMBERS]
_IMAGE = float_list(784)
_COLUMNS = {"identity": _NUMBERS, "mlp": _NUMBERS, "cnn": [_IMAGE]}
_INPUTS: dict[str, Any] = {"identity": _NAMES, "mlp": _NAMES, "cnn": "x"}
_FLOAT, _FLOATS = DataTypes.FLOAT(), DataTypes.ARRAY(DataTypes.FLOAT())
_OUTPUTS = {"identity": _FLOAT, "mlp": _FLOAT, "cnn": _FLOATS}
_SQL = {"identity": "y FLOAT", "mlp": "y FLOAT", "cnn": "y ARRAY<FLOAT>"}
_BATCH_ROWS = {"identity": 4096, **BATCH_ROWS}
_SMALL_ROWS = 1024  # in a call of the MLP, for comparison
_VARIANT_ROWS = {
    "predict, identity": (1_000_000, 8_000_000),
    "pandas UDF, identity": (100_000, 500_000),
    "row UDF, identity": (50_000, 200_000),
    "predict, mlp": (204_800, 5_324_800),
    "predict, cnn": (10_240, 153_600),
    "mlp": (204_800, 1_638_400),
    "cnn": (10_240, 61_440),
    "pandas UDF, mlp": (51_200, 307_200),
    "ray, mlp": (204_800, 819_200),
    "spark, mlp": (204_800, 819_200),
    "pandas UDF, cnn": (5_120, 25_600),
}
"""Rows of the smaller and the larger run, of a variant or of all that score with a model.

The start of a job takes a second more in one run than in the next: the larger run of `predict`
takes twenty.
"""

_PAIRED = {"predict, mlp": "in memory, mlp", "predict, cnn": "in memory, cnn"}

_SMOKE = (
    "predict, identity",
    "pandas UDF, identity",
    "row UDF, identity",
    "in memory, mlp",
    "predict, mlp",
)


def run_scoring(
    rows: dict[str, tuple[int, int]],
    *,
    repeats: int,
    warm_ups: int,
    pairs: int,
    elsewhere: str | None,
) -> dict[str, Any]:
    """Measure every variant in turns; return figures and bars.

    Args:
        rows: Rows of the smaller and the larger run, by variant.
        repeats: Turns that count.
        warm_ups: Turns before them.
        pairs: How often in a turn what is compared with a loop in memory runs beside it.
        elsewhere: Interpreter with ray and pyspark; None: without them.
    """
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-scoring-") as folder:
        models = [name for name in WIDTHS if f"predict, {name}" in rows or name in rows]
        files = {name: save_model(name, Path(folder)) for name in models}
        variants = _variants(files, elsewhere)
        for turn in range(-warm_ups, repeats):
            for name in _order_of_turn(variants, pairs):
                sizes = rows.get(name) or rows.get(name.split(", ")[1])
                if sizes is None:
                    continue
                rate = variants[name](*sizes)
                print(f"turn {turn}: {name}: {rate:,.0f} rows/s", flush=True)
                if turn >= 0:
                    rates.setdefault(name, []).append(rate)
    spreads = {name: report.spread(values) for name, values in rates.items()}
    ratios = {
        f"{model}: predict / loop in memory": report.spread(_ratios(rates, model, ""))
        for model in models
    }
    if "predict, mlp, 1024 rows" in rates:
        small = _ratios(rates, "mlp", ", 1024 rows")
        ratios["mlp, 1024 rows: predict / loop in memory"] = report.spread(small)
    return {
        "repeats": repeats,
        "rows": rows,
        "rows_per_s": spreads,
        "ratios_of_pairs": ratios,
        "bars": _bars(
            models,
            {name: each["median"] for name, each in spreads.items()},
            ratios,
        ),
    }


def _bars(models: list[str], rate: dict[str, float], ratios: dict[str, Any]) -> dict[str, Any]:
    bars = {
        "identity: predict / pandas UDF": report.at_least(
            rate["predict, identity"] / rate["pandas UDF, identity"], 2.0
        ),
        "identity: predict / row UDF": report.at_least(
            rate["predict, identity"] / rate["row UDF, identity"], 25.0
        ),
    }
    for model in models:
        reached = rate[f"predict, {model}"]
        bars[f"{model}: predict / loop in memory"] = report.at_least(
            ratios[f"{model}: predict / loop in memory"]["median"], 0.9
        )
        for other in ("pandas UDF", "ray", "spark"):
            if f"{other}, {model}" in rate:
                bars[f"{model}: predict / {other}"] = report.at_least(
                    reached / rate[f"{other}, {model}"], 1.0
                )
    return bars


def _order_of_turn(variants: Iterable[str], pairs: int) -> list[str]:
    """Return the variants; those that are compared as pairs follow each other several times."""
    order: list[str] = []
    for name in variants:
        order.append(name)
        if name in _PAIRED:
            order.extend([_PAIRED[name], name] * (pairs - 1))
    return order


def _ratios(rates: dict[str, list[float]], model: str, which: str) -> list[float]:
    """Return the ratio of each pair, since the machine is not as fast in one as in another."""
    pairs = zip(
        rates[f"predict, {model}{which}"], rates[f"in memory, {model}{which}"], strict=True
    )
    return [reached / in_memory for reached, in_memory in pairs]


def _variants(
    files: dict[str, Path], elsewhere: str | None
) -> dict[str, Callable[[int, int], float]]:
    def flink(run: Callable[[int], float]) -> Callable[[int, int], float]:
        return partial(marginal_rate, run)

    variants = {
        "predict, identity": flink(partial(_predict, "identity", PythonModel(_identity))),
        "pandas UDF, identity": flink(partial(_udf, "identity", _first_column, "pandas")),
        "row UDF, identity": flink(partial(_udf, "identity", _first_number, "general")),
    }
    for name, path in files.items():
        rows = BATCH_ROWS[name]
        variants[f"in memory, {name}, plain"] = partial(_in_memory, name, rows, {})
        variants[f"in memory, {name}"] = partial(_in_memory, name, rows, KEEP_MEMORY)
        variants[f"predict, {name}"] = flink(partial(_predict, name, TorchModel(path)))
        variants[f"pandas UDF, {name}"] = flink(partial(_udf, name, _scorer(name), "pandas"))
        for system in ("ray", "spark") if elsewhere else ():
            command = [elsewhere, "-m", "benchmarks.scoring_elsewhere", system, name]
            variants[f"{system}, {name}"] = partial(_outside, [str(each) for each in command])
    if "mlp" in files:
        small = partial(_predict, "mlp", TorchModel(files["mlp"]), batch_rows=_SMALL_ROWS)
        variants["in memory, mlp, 1024 rows"] = partial(
            _in_memory, "mlp", _SMALL_ROWS, KEEP_MEMORY
        )
        variants["predict, mlp, 1024 rows"] = flink(small)
    return variants


def _identity() -> Callable[[Any], Any]:
    return lambda x: x[:, 0]


def _first_column(*columns: Any) -> Any:
    return columns[0]


def _first_number(*numbers: float) -> float:
    return numbers[0]


def _scorer(name: str) -> Callable[..., Any]:
    """Return what a pandas UDF calls: the model is made once in its process."""
    models: list[Any] = []

    def score(*columns: Any) -> Any:
        if not models:
            torch.set_num_threads(1)
            models.append(torch.jit.script(build_model(name).eval()))
        if name == "cnn":
            x = np.stack(columns[0].to_numpy())
        else:
            x = np.column_stack([column.to_numpy() for column in columns])
        with torch.inference_mode():
            scores = [models[0](piece) for piece in torch.from_numpy(x).split(BATCH_ROWS[name])]
        y = torch.cat(scores).numpy()
        return pd.Series(list(y) if name == "cnn" else y[:, 0])

    return score


def _predict(name: str, model: Any, rows: int, *, batch_rows: int | None = None) -> float:
    t_env = open_t_env()
    scored = predict(
        rows_of(t_env, _COLUMNS[name], rows),
        model,
        inputs=_INPUTS[name],
        outputs={"y": _OUTPUTS[name]},
        keep=[],
        batch_rows=batch_rows or _BATCH_ROWS[name],
        threads=1,
    )
    return run_to_nowhere(t_env, scored, _SQL[name])


def _udf(name: str, function: Callable[..., Any], kind: str, rows: int) -> float:
    t_env = open_t_env()
    function = udf(function, result_type=_OUTPUTS[name], func_type=kind)
    t_env.create_temporary_system_function("f", function)
    columns: Sequence[Column] = _COLUMNS[name]
    t_env.create_temporary_view("features", rows_of(t_env, columns, rows))
    arguments = ", ".join(column.name for column in columns)
    scored: Table = t_env.sql_query(f"SELECT f({arguments}) AS y FROM features")  # noqa: S608
    return run_to_nowhere(t_env, scored, _SQL[name])


def _in_memory(
    name: str, batch_rows: int, environment: Mapping[str, str], few: int, many: int
) -> float:
    program = [sys.executable, "-m", "benchmarks.scored_models", name, str(batch_rows)]
    return _outside(program, few, many, environment)


def _outside(
    command: list[str], few: int, many: int, environment: Mapping[str, str] | None = None
) -> float:
    """Return the marginal rate of a program that prints seconds, at the end of lines."""
    done = subprocess.run(
        [*command, str(few), str(many)],
        env={**os.environ, "PYSPARK_PYTHON": command[0], **(environment or {})},  # noqa: TID251
        check=True,
        capture_output=True,
        text=True,
    )
    few_s, many_s = (float(line.split()[-1]) for line in done.stdout.splitlines()[-2:])
    return (many - few) / (many_s - few_s) if many_s > few_s else many / many_s


def main(arguments: list[str] | None = None) -> None:
    """Measure and write scoring.json."""
    options = report.parse_options("scoring", arguments)
    use_worker_processes()
    elsewhere = os.environ.get("HEADRACE_ELSEWHERE")  # noqa: TID251 - of this script alone
    if options.smoke:
        figures = run_scoring(
            dict.fromkeys(_SMOKE, (1_024, 4_096)),
            repeats=1,
            warm_ups=0,
            pairs=1,
            elsewhere=None,
        )
    else:
        figures = run_scoring(
            _VARIANT_ROWS, repeats=3, warm_ups=0, pairs=3, elsewhere=elsewhere
        )
    print(report.write_result("scoring", figures, options.results).read_text())


if __name__ == "__main__":
    main()
