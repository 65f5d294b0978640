"""Steps per second of a training that exports a model of 100 MB every 10 s, against without.

One job with `export_to` trains an MLP of rows of 784 floats as fast as it can, with a
checkpoint every 10 s, asked for by Flink's REST API. Windows of 30 s in which each completed
checkpoint gives a version of the model take turns with windows in which the worker leaves the
states of its checkpoints alone, as a job without `export_to` does: so the two sides differ in
nothing else. Every second pair of windows begins with the exports; the share is the median over
the pairs. How long behind the last acknowledgement of its checkpoint a version is there is
measured in the same windows, in which the training goes on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import headrace.pytorch
from benchmarks import report
from benchmarks.exports_worker import train_and_export
from benchmarks.flink_rest import FlinkJob, free_port
from benchmarks.pipelines import cancel, float_list, open_t_env, rows_of
from benchmarks.processes import wait_until
from benchmarks.throughput_workers import BATCH_ROWS, WIDTH
from benchmarks.windows import StepLog, pause_until
from headrace.config import ExchangeConfig

_HIDDEN = (4096, 4096, 1220)  # with 784 before and 10 behind: 100 MB
_ENOUGH_ROWS = 500_000_000  # the job goes on until it is cancelled
_LIMIT_S = 100.0
_WARM_UP = 3  # checkpoints: the files that they copy into are new then, with one more to export


def run_exports(
    *, pairs: int, every_s: float, per_window: int, warm_up_s: float, hidden: Sequence[int]
) -> dict[str, Any]:
    """Measure; return rates, shares and the ages of versions, and the bars.

    Args:
        pairs: Of windows.
        every_s: Seconds between two checkpoints.
        per_window: Checkpoints in a window; it is so many times `every_s` long.
        warm_up_s: Seconds of training before the first window.
        hidden: Widths of the model's hidden layers.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-exports-") as name:
        folder = Path(name)
        t_env = open_t_env(
            options={
                "rest.port": str(port),
                "execution.checkpointing.interval": "365 d",  # one at the start, no more
                "execution.checkpointing.dir": (folder / "cp").as_uri(),
                "restart-strategy.type": "none",
            }
        )
        entry = partial(
            train_and_export, hidden=hidden, steps=folder / "steps", switch=folder / "on"
        )
        job = headrace.pytorch.train(
            rows_of(t_env, [float_list(WIDTH)], _ENOUGH_ROWS),
            entry,
            # Few rows are under way, so that a barrier does not wait behind seconds of them.
            exchange=ExchangeConfig(batch_rows=BATCH_ROWS, slots=4),
            export_to=folder / "served",
            keep_exports=per_window + _WARM_UP,
            name="exports",
            spare_after_s=None,  # its import would take a core in one of the windows
        ).submit()
        try:
            windows = _Windows(FlinkJob(port, job.job_id), folder, every_s, per_window)
            windows.warm_up(warm_up_s)
            rates: list[dict[str, float]] = []
            for pair in range(pairs):
                sides = (True, False) if pair % 2 else (False, True)
                found = {_SIDES[exports]: windows.run(exports=exports) for exports in sides}
                rates.append(found)
                print(f"pair {pair}: {found}, versions {windows.version_s}", flush=True)
        finally:
            cancel(job, limit_s=_LIMIT_S)
    share = report.spread([each["with"] / each["without"] for each in rates])
    version_s = report.spread(windows.version_s)
    return {
        "checkpoint_every_s": every_s,
        "window_s": every_s * per_window,
        "pairs": pairs,
        "model_mb": windows.model_mb,
        "steps_per_s": {
            side: report.spread([each[side] for each in rates]) for side in _SIDES.values()
        },
        "share": share,
        "versions": len(windows.version_s),
        "version_behind_its_checkpoint_s": version_s,
        "bars": {
            f"steps/s with a version every {every_s:g} s over none": report.at_least(
                share["median"], 0.97
            ),
            "version of 100 MB behind its checkpoint, median in s": report.at_most(
                version_s["median"], 2
            ),
        },
    }


_SIDES = {True: "with", False: "without"}


class _Windows:
    """The windows of one job.

    Attributes:
        version_s: How long behind the last acknowledgement of its checkpoint each version was
            there.
        model_mb: Size of the latest one.
    """

    def __init__(self, job: FlinkJob, folder: Path, every_s: float, per_window: int) -> None:
        self._job = job
        self._steps = StepLog(folder / "steps")
        self._switch = folder / "on"
        self._served = folder / "served"
        self._every_s = every_s
        self._per_window = per_window
        self.version_s: list[float] = []
        self.model_mb = 0.0

    def warm_up(self, seconds: float) -> None:
        """Wait for the first steps, then for some time and versions that do not count."""
        wait_until(self._steps.has_steps, limit_s=_LIMIT_S, what="the first step")
        pause_until(time.monotonic() + seconds)
        self._job.await_no_checkpoint(limit_s=_LIMIT_S)
        self._switch.touch()
        for _ in range(_WARM_UP):
            self._job.begin_checkpoint()
            self._await_versions(self._job.await_checkpoints(limit_s=_LIMIT_S)[:1])

    def run(self, *, exports: bool) -> float:
        """Let the job train for a window; return steps/s."""
        if exports:
            self._switch.touch()
        else:
            self._switch.unlink(missing_ok=True)
        began = time.monotonic()
        for number in range(self._per_window):  # each in the middle of its part
            pause_until(began + (number + 0.5) * self._every_s)
            self._job.begin_checkpoint()
        pause_until(began + self._per_window * self._every_s)
        ended = time.monotonic()
        # All of them: none reaches into the next window.
        done = self._job.await_checkpoints(limit_s=_LIMIT_S)[: self._per_window]
        if exports:
            self.version_s += self._await_versions(done)
        elif any(self._version_of(each).exists() for each in done):
            msg = "a version was written in a window without: the worker does not obey"
            raise RuntimeError(msg)
        return self._steps.rate(began, ended)

    def _await_versions(self, checkpoints: list[dict[str, Any]]) -> list[float]:
        """Wait for their versions; return how long each took, in seconds."""
        taken = []
        for each in checkpoints:
            path = self._version_of(each)
            wait_until(path.exists, limit_s=_LIMIT_S, what=f"version {path.name}")
            found = path.stat()  # a rename is a change
            taken.append(found.st_ctime - each["latest_ack_timestamp"] / 1e3)
            self.model_mb = found.st_size / 1e6
        return taken

    def _version_of(self, checkpoint: dict[str, Any]) -> Path:
        return self._served / f"checkpoint-{checkpoint['id']}.pt"


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("exports", arguments)
    if options.smoke:
        figures = run_exports(pairs=1, every_s=2, per_window=1, warm_up_s=0, hidden=(64,))
    else:
        figures = run_exports(pairs=4, every_s=10, per_window=3, warm_up_s=5, hidden=_HIDDEN)
    print(report.write_result("exports", figures, options.results).read_text())


if __name__ == "__main__":
    main()
