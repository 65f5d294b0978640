"""Steps/s of TensorFlow workers that Flink feeds, against the same workers fed from memory.

MLP 16-64-1, batches of 256 rows of 16 FLOAT columns, SGD, Keras' `fit` with ten steps for each
execution and two batches prefetched, two workers: on one parameter server (asynchronous), and
synchronously. In each repeat, one after the other, a Flink job of each kind fed by a query and
one in batch mode whose workers hold their rows. The sum of the workers' rates behind the
warm-up is compared; Flink's own work for the rows is on the same cores and counts. Each job has
a JVM of its own, as a cluster for one job has, so that none finds what earlier ones left there.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any, get_args

import headrace.tensorflow
from benchmarks import report
from benchmarks.pipelines import Column, float_columns, open_t_env, rows_of
from benchmarks.tf_workers import BATCH_ROWS, WIDTH, Source, train_timed

_WORKERS = 2
_LIMIT_S = 300.0
_START_LIMIT_S = 120.0
_KINDS = {"parameter server": (1, 3_000), "synchronous": (0, 24_000)}
"""Parameter servers, and steps of each worker; half of them warm the JVM up, whose compiler has
to share two cores with the training and takes 20 s and more."""


def run_tf_training(kinds: dict[str, tuple[int, int]], *, repeats: int) -> dict[str, Any]:
    """Train in turns; return the rates and bars.

    Args:
        kinds: Of each kind of training the parameter servers, and the steps of each worker,
            of which the first half does not count.
        repeats: Turns of each kind.
    """
    rates: dict[str, dict[str, list[float]]] = {
        kind: {source: [] for source in get_args(Source)} for kind in kinds
    }
    for repeat in range(repeats):
        for kind, (ps, steps) in kinds.items():
            for source in get_args(Source):
                rate = _in_own_process(source, ps, steps)
                rates[kind][source].append(rate)
                print(f"repeat {repeat}: {kind}, {source}: {rate:.0f} steps/s", flush=True)
    ratios = {
        kind: report.spread([f / m for f, m in zip(each["fed"], each["memory"], strict=True)])
        for kind, each in rates.items()
    }
    return {
        "steps": {kind: steps for kind, (_, steps) in kinds.items()},
        "batch_rows": BATCH_ROWS,
        "repeats": repeats,
        "steps_per_s_of_all_workers": {
            kind: {source: report.spread(values) for source, values in each.items()}
            for kind, each in rates.items()
        },
        "fed_over_memory": ratios,
        "bars": {
            f"{kind}: fed over memory": report.at_least(ratio["median"], 0.9)
            for kind, ratio in ratios.items()
        },
    }


def _in_own_process(source: Source, ps: int, steps: int) -> float:
    code = (
        "from benchmarks.tf_training import steps_per_s\n"
        f"print(steps_per_s({source!r}, {ps}, {steps}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_LIMIT_S + _START_LIMIT_S,
    )
    return float(done.stdout.split()[-1])


def steps_per_s(source: Source, ps: int, steps: int) -> float:
    """Train once; return the steps of all workers a second behind the warm-up."""
    rows = None
    if source == "fed":
        scale = 1.0 / (steps * BATCH_ROWS * _WORKERS)
        features = [
            Column(name=c.name, type=c.type, expression=f"CAST({scale:.3e} * id AS FLOAT)")
            for c in float_columns(WIDTH)
        ]
        label = Column(name="y", type="FLOAT", expression=f"CAST({scale:.3e} * id AS FLOAT)")
        rows = rows_of(open_t_env(_WORKERS), [*features, label], steps * BATCH_ROWS * _WORKERS)
    plan = headrace.tensorflow.train(
        rows,
        partial(train_timed, source=source, steps=steps, warm_up_steps=steps // 2),
        workers=_WORKERS,
        ps=ps,
        name="tf-training",
    )
    result = plan.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
    reports = [result.status.nodes[f"worker-{i}"].report for i in range(_WORKERS)]
    return sum(each["steps_per_s"] for each in reports if each)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("tf_training", arguments)
    if options.smoke:
        figures = run_tf_training({"parameter server": (1, 60)}, repeats=1)
    else:
        figures = run_tf_training(_KINDS, repeats=3)
    print(report.write_result("tf_training", figures, options.results).read_text())


if __name__ == "__main__":
    main()
