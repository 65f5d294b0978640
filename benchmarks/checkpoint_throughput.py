"""Steps per second of a training with a checkpoint every 10 s, against the same without.

One job, whose model and optimizer have 100 MB, trains an MLP of rows of 784 floats as fast as
it can. Windows of 30 s with three checkpoints, asked for by Flink's REST API, take turns with
windows without any, in the same processes: so the two sides differ in nothing else. Every
second pair of windows begins with the checkpoints; the share is the median over the pairs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import headrace.pytorch
import headrace.tensorflow
from benchmarks import report, throughput_workers
from benchmarks.flink_rest import FlinkJob, free_port
from benchmarks.pipelines import cancel, float_list, open_t_env, rows_of
from benchmarks.processes import wait_until
from benchmarks.windows import StepLog, pause_until
from headrace.config import ExchangeConfig

_FRAMEWORKS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "PyTorch": (headrace.pytorch.train, throughput_workers.train_in_pytorch),
    "TensorFlow": (headrace.tensorflow.train, throughput_workers.train_in_tensorflow),
}
_ENOUGH_ROWS = 500_000_000  # the job goes on until it is cancelled
_LIMIT_S = 100.0
_WARM_UP = 2  # checkpoints: the files that they copy into are new then


def run_throughput(
    *, pairs: dict[str, int], every_s: float, per_window: int, warm_up_s: float
) -> dict[str, Any]:
    """Measure; return rates, shares and the lengths of the checkpoints, and the bars.

    Args:
        pairs: Framework to its pairs of windows.
        every_s: Seconds between two checkpoints.
        per_window: Checkpoints in a window; it is so many times `every_s` long.
        warm_up_s: Seconds of training before the first window.
    """
    figures = {
        framework: _measure(framework, count, every_s, per_window, warm_up_s)
        for framework, count in pairs.items()
    }
    return {
        "checkpoint_every_s": every_s,
        "window_s": every_s * per_window,
        "throughput": figures,
        "bars": {
            f"{framework}: steps/s with a checkpoint every {every_s:g} s over none": (
                report.at_least(found["share"]["median"], 0.97)
            )
            for framework, found in figures.items()
        },
    }


def _measure(
    framework: str, pairs: int, every_s: float, per_window: int, warm_up_s: float
) -> dict[str, Any]:
    """Run a job with windows in turns; return what was seen of it."""
    train, entry = _FRAMEWORKS[framework]
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-throughput-") as folder:
        steps = Path(folder, "steps")
        t_env = open_t_env(
            options={
                "rest.port": str(port),
                "execution.checkpointing.interval": "365 d",  # one at the start, no more
                "execution.checkpointing.dir": Path(folder, "cp").as_uri(),
                "restart-strategy.type": "none",
            }
        )
        job = train(
            rows_of(t_env, [float_list(throughput_workers.WIDTH)], _ENOUGH_ROWS),
            partial(entry, steps=steps),
            # Few rows are under way, so that a barrier does not wait behind seconds of them.
            exchange=ExchangeConfig(batch_rows=throughput_workers.BATCH_ROWS, slots=4),
            name="throughput",
            spare_after_s=None,  # its import would take a core in one of the windows
        ).submit()
        try:
            windows = _Windows(FlinkJob(port, job.job_id), StepLog(steps), every_s, per_window)
            windows.warm_up(warm_up_s)
            for pair in range(pairs):
                for has_checkpoints in (True, False) if pair % 2 else (False, True):
                    windows.run(has_checkpoints=has_checkpoints)
                print(f"{framework}, pair {pair}: {windows.rates(pair)}", flush=True)
        finally:
            cancel(job, limit_s=_LIMIT_S)
        rates = [windows.rates(pair) for pair in range(pairs)]
    return {
        "pairs": pairs,
        "steps_per_s": {
            side: report.spread([each[side] for each in rates]) for side in ("with", "without")
        },
        "share": report.spread([each["with"] / each["without"] for each in rates]),
        "checkpoints": len(windows.checkpoints_s),
        "checkpoint_s": report.spread(windows.checkpoints_s),
        "state_mb": windows.state_mb,
    }


class _Windows:
    """The windows of one job.

    Attributes:
        checkpoints_s: How long each checkpoint took, from Flink's trigger to its completion.
        state_mb: Size of the latest one.
    """

    def __init__(self, job: FlinkJob, steps: StepLog, every_s: float, per_window: int) -> None:
        self._job = job
        self._steps = steps
        self._every_s = every_s
        self._per_window = per_window
        self._bounds: list[dict[str, tuple[float, float]]] = []
        self.checkpoints_s: list[float] = []
        self.state_mb = 0.0

    def warm_up(self, seconds: float) -> None:
        """Wait for the first steps, then for some time and checkpoints that do not count."""
        wait_until(self._steps.has_steps, limit_s=_LIMIT_S, what="the first step")
        pause_until(time.monotonic() + seconds)
        self._job.await_no_checkpoint(limit_s=_LIMIT_S)
        for _ in range(_WARM_UP):
            self._job.begin_checkpoint()
            self._job.await_checkpoints(limit_s=_LIMIT_S)

    def run(self, *, has_checkpoints: bool) -> None:
        """Let the job train for a window."""
        began = time.monotonic()
        if has_checkpoints:
            for number in range(self._per_window):  # each in the middle of its part
                pause_until(began + (number + 0.5) * self._every_s)
                self._job.begin_checkpoint()
        pause_until(began + self._per_window * self._every_s)
        ended = time.monotonic()
        if has_checkpoints:
            # All of them: none reaches into the next window.
            done = self._job.await_checkpoints(limit_s=_LIMIT_S)[: self._per_window]
            self.checkpoints_s += [each["end_to_end_duration"] / 1e3 for each in done]
            self.state_mb = done[0]["state_size"] / 1e6
        side = "with" if has_checkpoints else "without"
        if not self._bounds or len(self._bounds[-1]) == 2:
            self._bounds.append({})
        self._bounds[-1][side] = (began, ended)

    def rates(self, pair: int) -> dict[str, float]:
        """Return the steps/s of both sides of a pair."""
        return {
            side: self._steps.rate(began, ended)
            for side, (began, ended) in sorted(self._bounds[pair].items())
        }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("checkpoint_throughput", arguments)
    if options.smoke:
        figures = run_throughput(pairs={"PyTorch": 1}, every_s=2, per_window=1, warm_up_s=0)
    else:
        figures = run_throughput(
            pairs={"PyTorch": 4, "TensorFlow": 3}, every_s=10, per_window=3, warm_up_s=5
        )
    print(report.write_result("checkpoint_throughput", figures, options.results).read_text())


if __name__ == "__main__":
    main()
