"""Trains the delay model and says how good it is: `python -m examples.flight_delays`."""

from __future__ import annotations

import argparse
import importlib
import json
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cloudpickle
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

import examples.flight_delays
from examples.flight_delays.dataset import raw_tables
from examples.flight_delays.evaluation import Error, Rows, compare, read_rows
from examples.flight_delays.features import CODES, create_feature_files, create_features
from examples.flight_delays.history import HISTORY_FILE, History, draw, read_history
from headrace.operator import JobResult

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
    for name in ("features", "checkpoints"):
        shutil.rmtree(out / name, ignore_errors=True)
    tables = raw_tables(out / "raw", days=options.days)
    flights = tables["flights"]
    categories = [len(flights.values(name)) for name in CODES[:-1]] + [_WEEKDAYS]

    # Workers on a cluster do not have this folder: its functions travel by value.
    cloudpickle.register_pickle_by_value(examples.flight_delays)
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(options.workers)
    t_env = StreamTableEnvironment.create(env)
    create_features(t_env, tables)
    create_feature_files(t_env, out / "features")
    side = importlib.import_module(f"examples.flight_delays.in_{options.framework}")
    job = side.plan(
        t_env, out, categories=categories, workers=options.workers, epochs=options.epochs
    )
    # The same job writes all rows into files as well, for the baselines and the last word.
    files = t_env.create_statement_set()
    files.add_insert_sql("INSERT INTO feature_files SELECT * FROM features")
    result = job.submit(files).wait()

    training, held_out = read_rows(out / "features")
    predicted_min = side.predict(out, held_out, categories=categories)
    errors = compare(predicted_min, categories, training, held_out)
    history = read_history(out / HISTORY_FILE, epochs=options.epochs)
    metrics = _metrics(result, training, held_out, errors, history)
    metrics["wall_s"] = round(time.monotonic() - begin, 1)
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    draw(history, out / "loss.png")
    return _report(metrics, errors, out, is_whole_year=options.days is None)


def _parse(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m examples.flight_delays")
    parser.add_argument("--framework", choices=("pytorch", "tensorflow"), default="pytorch")
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
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
    history: History,
) -> dict[str, Any]:
    nodes = sorted(result.status.nodes.items())
    by_worker = {name: node.rows_in for name, node in nodes if name.startswith("worker")}
    return {
        "rows": {"training": len(training), "held_out": len(held_out), "by_worker": by_worker},
        "nodes": {n: {"state": node.state, "report": dict(node.report)} for n, node in nodes},
        "epochs": history.epochs,
        "job_s": round(result.duration_s, 1),
        "rows_per_s": round(history.epochs * len(training) / result.duration_s),
        "loss_by_epoch": history.by_epoch(history.losses),
        "loss_of_guessing_by_epoch": history.by_epoch(history.guesses),
        "held_out_errors": {name: asdict(error) for name, error in errors.items()},
    }


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
