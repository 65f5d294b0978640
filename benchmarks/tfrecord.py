"""Rows/s of TFRecord files: written and read by Flink, beside Flink's own formats and tf.data.

Rows of 16 FLOAT columns, one task, object reuse. Rates are marginal (`marginal_rate`): of
Flink's own run time for jobs, of its own clock for TensorFlow, which reads the same files.

- Writing: generated rows into TFRecord (plain, GZIP), CSV and JSON files, and into a sink that
  discards them; and `tf.io.TFRecordWriter` with `SerializeToString` of the same features.
- Reading: each of those files into a discarding sink; all columns are looked at, by their sum.
  `tf.data` parses batches with `tf.io.parse_example`, with one thread and with its default.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.pipelines import (
    float_columns,
    marginal_rate,
    open_t_env,
    rows_of,
    run_to_nowhere,
    sql_columns,
)
from benchmarks.report import at_least, parse_options, spread, write_result
from headrace.tensorflow import tfrecord

_COLUMNS = float_columns(16)
_FORMATS = {
    "tfrecord": {"format": "tfrecord"},
    "tfrecord, GZIP": {"format": "tfrecord", "tfrecord.compression": "GZIP"},
    "csv": {"format": "csv"},
    "json": {"format": "json"},
}
_ONE = {"tf.data, one thread": 1}
_TENSORFLOW = f"{__package__}.tfrecord_tensorflow"


def run_tfrecord(
    formats: Collection[str],
    threads_of: Mapping[str, int],
    few: int,
    many: int,
    tensorflow_rows: tuple[int, int],
    repeats: int,
) -> dict[str, Any]:
    """Measure every variant in turns; return rates in rows/s and ratios.

    Args:
        formats: Which of Flink's formats, "tfrecord" and "csv" among them.
        threads_of: Threads of each way to read with tf.data, 0 for its default.
        few: Rows of the smaller runs.
        many: Rows of the larger runs.
        tensorflow_rows: The same two for writing with TensorFlow, which is slow.
        repeats: How often each variant is measured.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-tfrecord-") as folder:
        inputs = Path(folder) / "inputs"
        for name in formats:
            for rows in (few, many):
                _write_files(name, inputs / name / str(rows), rows)
        files = {rows: str(inputs / "tfrecord" / str(rows)) for rows in (few, many)}
        writing: dict[str, Callable[[int], float]] = {"discarded": _discard}
        reading: dict[str, Callable[[int], float]] = {}
        for name in formats:
            writing[name] = partial(_write_scratch, name)
            reading[name] = partial(_read_files, name, inputs / name)
        for name, threads in threads_of.items():
            reading[name] = partial(_read_with_tensorflow, files, str(threads))
        rates: dict[str, dict[str, list[float]]] = {"writing": {}, "reading": {}}
        for _ in range(repeats):
            for kind, variants in (("writing", writing), ("reading", reading)):
                for name, run in variants.items():
                    rate = marginal_rate(run, few, many)
                    rates[kind].setdefault(name, []).append(rate)
                    print(f"{kind} {name}: {rate / 1e6:.3f} Mrows/s", flush=True)
            rate = marginal_rate(partial(_write_with_tensorflow, folder), *tensorflow_rows)
            rates["writing"].setdefault("tf.io.TFRecordWriter", []).append(rate)
            print(f"writing tf.io.TFRecordWriter: {rate / 1e6:.3f} Mrows/s", flush=True)
    medians = {
        kind: {name: median(values) for name, values in of_kind.items()}
        for kind, of_kind in rates.items()
    }
    over = {
        kind: {name: of_kind["tfrecord"] / rate for name, rate in of_kind.items()}
        for kind, of_kind in medians.items()
    }
    return {
        "repeats": repeats,
        "rows": {"few": few, "many": many, "tensorflow": tensorflow_rows},
        "rows_per_s": {
            kind: {name: spread(values) for name, values in of_kind.items()}
            for kind, of_kind in rates.items()
        },
        "tfrecord_over": over,
        "bars": {
            "writing: over Flink's CSV": at_least(over["writing"]["csv"], 1.0),
            "writing: over tf.io.TFRecordWriter": at_least(
                over["writing"]["tf.io.TFRecordWriter"], 1.0
            ),
            "reading: over Flink's CSV": at_least(over["reading"]["csv"], 1.0),
            "reading: over tf.data with one thread": at_least(
                over["reading"]["tf.data, one thread"], 1.0
            ),
        },
    }


def _discard(rows: int) -> float:
    t_env = open_t_env()
    return run_to_nowhere(t_env, rows_of(t_env, _COLUMNS, rows), sql_columns(_COLUMNS))


def _write_scratch(name: str, rows: int) -> float:
    with tempfile.TemporaryDirectory(prefix="headrace-tfrecord-") as folder:
        return _write_files(name, Path(folder), rows)


def _write_files(name: str, folder: Path, rows: int) -> float:
    t_env = open_t_env()
    table = rows_of(t_env, _COLUMNS, rows)
    _create_table(t_env, name, folder)
    client = table.execute_insert("files").get_job_client()
    assert client is not None
    return float(client.get_job_execution_result().result().get_net_runtime()) / 1000.0


def _read_files(name: str, folder: Path, rows: int) -> float:
    t_env = open_t_env()
    _create_table(t_env, name, folder / str(rows))
    total = " + ".join(f"`{column.name}`" for column in _COLUMNS)
    table = t_env.sql_query(f"SELECT {total} AS total FROM files")  # noqa: S608 - own text
    return run_to_nowhere(t_env, table, "total FLOAT")


def _create_table(t_env: Any, name: str, folder: Path) -> None:
    tfrecord.add_format(t_env)
    options = {"connector": "filesystem", "path": folder.as_uri(), **_FORMATS[name]}
    listed = ", ".join(f"'{key}' = '{value}'" for key, value in options.items())
    t_env.execute_sql(f"CREATE TEMPORARY TABLE files ({sql_columns(_COLUMNS)}) WITH ({listed})")


def _read_with_tensorflow(files: Mapping[int, str], threads: str, rows: int) -> float:
    return _tensorflow("read", files[rows], threads)


def _write_with_tensorflow(folder: str, rows: int) -> float:
    return _tensorflow("write", f"{folder}/of_tensorflow", str(rows))


def _tensorflow(*arguments: str) -> float:
    """Return the seconds that TensorFlow took, without its start."""
    done = subprocess.run(
        [sys.executable, "-m", _TENSORFLOW, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = parse_options("tfrecord", arguments)
    if options.smoke:
        figures = run_tfrecord(["tfrecord", "csv"], _ONE, 200, 2_000, (20, 200), repeats=1)
    else:
        figures = run_tfrecord(
            _FORMATS, {**_ONE, "tf.data": 0}, 250_000, 2_000_000, (5_000, 40_000), repeats=3
        )
    print(write_result("tfrecord", figures, options.results).read_text())


if __name__ == "__main__":
    main()
