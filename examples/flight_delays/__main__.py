"""Trains the delay model and says how good it is: `python -m examples.flight_delays`."""

from __future__ import annotations

import argparse
import functools
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cloudpickle
import matplotlib as mpl
import torch
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

import examples.flight_delays
import headrace.pytorch
from examples.flight_delays.dataset import raw_tables
from examples.flight_delays.evaluation import Error, Rows, evaluate, read_rows
from examples.flight_delays.features import (
    CODES,
    create_feature_files,
    create_features,
    training_rows,
)
from examples.flight_delays.training import HISTORY_FILE, MODEL_FILE, train
from headrace.operator import JobResult

mpl.use("Agg")
from matplotlib import pyplot as plt

_WEEKDAYS = 7


def main(argv: list[str] | None = None) -> int:
    """Run the job and the evaluation.

    Returns:
        Exit code: 0 if no row was lost and the model, if it had the whole year, beats both
        baselines.
    """
    options = _parse(argv)
    begin = time.monotonic()
    out: Path = options.out.resolve()
    shutil.rmtree(out / "features", ignore_errors=True)
    tables = raw_tables(out / "raw", days=options.days)
    flights = tables["flights"]
    categories = [len(flights.values(name)) for name in CODES[:-1]] + [_WEEKDAYS]

    # Workers on a cluster do not have this folder: its functions travel by value.
    cloudpickle.register_pickle_by_value(examples.flight_delays)
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(options.workers)
    t_env = StreamTableEnvironment.create(env)
    create_features(t_env, tables)
    job = headrace.pytorch.train(
        training_rows(t_env),
        functools.partial(train, categories=categories),
        workers=options.workers,
        epochs=options.epochs,
        output_dir=out,
        name="flight-delays",
    )
    # The same job writes all rows to files, for the baselines and for the evaluation.
    statements = t_env.create_statement_set()
    create_feature_files(t_env, out / "features")
    statements.add_insert_sql("INSERT INTO feature_files SELECT * FROM features")
    result = job.submit(statements).wait()

    training, held_out = read_rows(out / "features")
    errors = evaluate(out / MODEL_FILE, categories, training, held_out)
    history = torch.load(out / HISTORY_FILE)
    metrics = _metrics(result, training, held_out, errors, history, options.epochs)
    metrics["wall_s"] = round(time.monotonic() - begin, 1)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    _draw(history, options.epochs, out / "loss.png")
    return _report(metrics, errors, out, is_whole_year=options.days is None)


def _parse(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m examples.flight_delays")
    parser.add_argument("--workers", type=int, default=2, help="PyTorch workers (default: 2)")
    parser.add_argument(
        "--epochs", type=int, default=3, help="passes over the rows (default: 3)"
    )
    parser.add_argument(
        "--days", type=int, help="train on the last days of October only, test on as many"
    )
    parser.add_argument("--out", type=Path, default=Path("out/flight_delays"), help="directory")
    return parser.parse_args(argv)


def _metrics(
    result: JobResult,
    training: Rows,
    held_out: Rows,
    errors: dict[str, Error],
    history: dict[str, list[float]],
    epochs: int,
) -> dict[str, Any]:
    by_worker = {name: node.rows_in for name, node in sorted(result.status.nodes.items())}
    return {
        "rows": {"training": len(training), "held_out": len(held_out), "by_worker": by_worker},
        "epochs": epochs,
        "job_s": round(result.duration_s, 1),
        "rows_per_s": round(epochs * len(training) / result.duration_s),
        "loss_by_epoch": _by_epoch(history["losses"], epochs),
        "loss_of_guessing_by_epoch": _by_epoch(history["guesses"], epochs),
        "held_out_errors": {name: asdict(error) for name, error in errors.items()},
    }


def _by_epoch(losses: list[float], epochs: int) -> list[float]:
    steps = len(losses) // epochs
    parts = [losses[epoch * steps : (epoch + 1) * steps] for epoch in range(epochs)]
    return [round(sum(part) / max(1, len(part)), 4) for part in parts]


def _draw(history: dict[str, list[float]], epochs: int, path: Path) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    labels = {"guesses": "guessing the mean of the step's flights", "losses": "the model"}
    for name, label in labels.items():
        axes.plot(_smooth(history[name]), label=label)
    for epoch in range(1, epochs):
        axes.axvline(epoch * len(history["losses"]) / epochs, color="lightgray", zorder=0)
    axes.set(xlabel="step of worker-0", ylabel="loss (Huber, hours), mean of 20 steps")
    axes.set(title="Flight delays: loss while training, epoch by epoch")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _smooth(values: list[float], width: int = 20) -> list[float]:
    first = [max(0, end - width) for end in range(1, len(values) + 1)]
    return [sum(values[i : end + 1]) / (end + 1 - i) for end, i in enumerate(first)]


def _report(
    metrics: dict[str, Any], errors: dict[str, Error], out: Path, *, is_whole_year: bool
) -> int:
    rows = metrics["rows"]
    print(f"rows trained on: {rows['training']:,} from SQL, by worker {rows['by_worker']}")
    print(f"held-out errors on {rows['held_out']:,} flights of November and December:")
    for name, error in errors.items():
        print(f"  {name:7}{error}")
    print(f"{metrics['rows_per_s']:,} rows/s, {metrics['wall_s']} s in all; see {out}")
    failures = []
    if sum(rows["by_worker"].values()) != rows["training"]:
        failures.append("the workers have not seen each of the rows that the SQL yields once")
    model = errors["model"]
    failures += [
        f"the model does not beat the baseline {name!r}"
        for name in ("mean", "linear")
        if is_whole_year
        if model.mae_min >= errors[name].mae_min or model.rmse_min >= errors[name].rmse_min
    ]
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
