"""Scores November and December with the trained model, in SQL: see `main`.

`python -m examples.flight_delays.score`, after `python -m examples.flight_delays`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

import headrace.sql
from examples.flight_delays.dataset import raw_tables
from examples.flight_delays.features import create_features, held_out_rows

__all__ = ["main"]

_MODEL_FILES = {"pytorch": "model.pt2", "tensorflow": "model.keras"}
_BATCH_ROWS = 1024

_MODEL = """
CREATE TEMPORARY MODEL delay
INPUT (numbers ARRAY<FLOAT>, codes ARRAY<INT>)
OUTPUT (predicted_min FLOAT)
WITH ('provider' = 'headrace', 'framework' = '{framework}', 'path' = '{path}',
    'batch-rows' = '{batch_rows}', 'python.executable' = '{python}')
"""

_SINK = """
CREATE TEMPORARY TABLE predictions (departure_h FLOAT, late_min FLOAT, predicted_min FLOAT)
WITH ('connector' = 'filesystem', 'format' = 'csv', 'path' = 'file://{path}')
"""

# The hour of the schedule lies on a circle among the numbers: sine first, then cosine.
_INSERT = """
INSERT INTO predictions
SELECT CAST(ATAN2(numbers[1], numbers[2]) * 12 / PI() + IF(numbers[1] < 0, 24, 0) AS FLOAT),
    late_min, predicted_min
FROM ML_PREDICT(TABLE held_out, MODEL delay, DESCRIPTOR(numbers, codes))
"""


def main(argv: list[str] | None = None) -> int:
    """Write the predictions into files: hour of departure, true and predicted delay in minutes.

    Returns:
        Exit code: 0; 1 if there is no model yet.
    """
    options = _parse(argv)
    out: Path = options.out.resolve()
    model = out / _MODEL_FILES[options.framework]
    if not model.exists():
        train = f"python -m examples.flight_delays --framework {options.framework}"
        print(f"There is no {model}: train it, {train} --out {out}", file=sys.stderr)
        return 1
    shutil.rmtree(out / "predictions", ignore_errors=True)
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(options.workers)
    t_env = StreamTableEnvironment.create(env)
    headrace.sql.add_jars(t_env)
    t_env.get_config().set(
        "table.exec.async-ml-predict.max-concurrent-operations", str(2 * _BATCH_ROWS)
    )
    create_features(t_env, raw_tables(out / "raw", days=options.days))
    t_env.create_temporary_view("held_out", held_out_rows(t_env))
    t_env.execute_sql(
        _MODEL.format(
            framework=options.framework,
            path=model,
            batch_rows=_BATCH_ROWS,
            python=sys.executable,
        )
    )
    t_env.execute_sql(_SINK.format(path=out / "predictions"))
    t_env.execute_sql(_INSERT).wait()
    print(f"predictions: {out / 'predictions'}; plot them: {__package__}.plot_by_hour")
    return 0


def _parse(argv: list[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m examples.flight_delays.score")
    parser.add_argument("--framework", choices=(*_MODEL_FILES,), default="pytorch")
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
    parser.add_argument(
        "--days", type=int, help="score so many days of November only, as in the training"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("out/flight_delays"), help="of the training"
    )
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
