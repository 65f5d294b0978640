"""How long a TensorFlow job takes from its submission to the first step.

Over what Flink and TensorFlow take by themselves. In each repeat, one after the other: a plain
Flink job with the same source and query, from its submission until its first row is through;
bare interpreters, as many as the job has processes of TensorFlow, that import it at the same
time and make a step (or start a server); and the job, until the last worker has made its first
step. Once synchronously with two workers, once with a parameter server beside. The clock is the
machine's monotonic one in all processes.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import headrace.tensorflow
from benchmarks import report
from benchmarks.java_probe import build_probe_jar
from benchmarks.lifecycle import features, plain_flink_s
from benchmarks.pipelines import open_t_env
from benchmarks.tf_workers import leave_first_mark

_WORKERS = 2
_FEW_ROWS = 20_000
_LIMIT_S = 120.0
_KINDS = {"synchronous": 0, "parameter server": 1}
_STEP_ALONE = """\
import time
import keras
import tensorflow as tf
from benchmarks.tf_workers import build_model
model = build_model()
optimizer = keras.optimizers.SGD(0.01)
@tf.function
def step(x):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(x) ** 2)
    variables = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
step(tf.zeros((64, 16)))
print(time.monotonic())
"""
_SERVER_ALONE = """\
import time
import tensorflow as tf
server = tf.distribute.Server({"ps": ["127.0.0.1:0"]}, job_name="ps", task_index=0)
print(time.monotonic())
"""


def run_tf_start(kinds: dict[str, int], *, repeats: int) -> dict[str, Any]:
    """Start in turns; return the seconds and bars.

    Args:
        kinds: Parameter servers of each kind of job.
        repeats: Starts of each kind.
    """
    starts: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    with tempfile.TemporaryDirectory(prefix="headrace-tf-start-") as scratch:
        jar = build_probe_jar(Path(scratch))
        plain_flink_s(jar, Path(scratch), _WORKERS)  # the JVM loads its classes once
        for repeat in range(repeats):
            for kind, ps in kinds.items():
                taken = {
                    "plain Flink": plain_flink_s(jar, Path(scratch), _WORKERS),
                    "TensorFlow alone": _alone_s(ps),
                    "job": _first_step_s(ps),
                }
                starts[kind].append(taken)
                print(f"repeat {repeat}: {kind}: {taken}", flush=True)
    over = {
        kind: report.percentiles(
            [each["job"] - each["plain Flink"] - each["TensorFlow alone"] for each in taken]
        )
        for kind, taken in starts.items()
    }
    return {
        "start_s": {
            kind: {key: report.percentiles([each[key] for each in taken]) for key in taken[0]}
            for kind, taken in starts.items()
        },
        "first_step_over_flink_and_tensorflow_s": over,
        "bars": {
            f"{kind}: first step over Flink's and TensorFlow's start, p50 in s": report.at_most(
                seconds["p50"], 2.0
            )
            for kind, seconds in over.items()
        },
    }


def _alone_s(ps: int) -> float:
    """Return the seconds until as many interpreters as the job has are where it begins."""
    begin = time.monotonic()
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        for program in [_STEP_ALONE] * _WORKERS + [_SERVER_ALONE] * ps
    ]
    said = [program.communicate(timeout=_LIMIT_S)[0].split() for program in programs]
    return max(float(instant) for (instant,) in said) - begin


def _first_step_s(ps: int) -> float:
    with tempfile.TemporaryDirectory(prefix="headrace-marks-") as folder:
        marks = Path(folder)
        plan = headrace.tensorflow.train(
            features(open_t_env(_WORKERS), _FEW_ROWS),
            partial(leave_first_mark, marks=marks),
            workers=_WORKERS,
            ps=ps,
            name="tf-start",
        )
        begin = time.monotonic()
        plan.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
        instants = [(marks / str(i)).read_text().split()[0] for i in range(_WORKERS)]
        return max(map(float, instants)) - begin


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("tf_start", arguments)
    if options.smoke:
        figures = run_tf_start({"synchronous": 0}, repeats=1)
    else:
        figures = run_tf_start(_KINDS, repeats=5)
    print(report.write_result("tf_start", figures, options.results).read_text())


if __name__ == "__main__":
    main()
