"""How long a stream job takes from kill -9 to the first new step, with and without a spare.

A job of one worker trains on rows, with a checkpoint each half second. At a random moment its
algorithm process, or in turns its node, is killed. What Flink takes by itself is taken off:
from the kill until Flink's log says that the task of the source runs again, with the restart
delay (100 ms) in it. (That of the worker runs when the first record of its master has come, so
that would be too late.) The clock is the machine's monotonic one in all processes.

Each framework has one job with a spare and one without; a kill comes when the spare is ready,
or, where there is none, when the process has run for as long as a spare may take. The spare is
started one second after the process; by default it is ten, so that of two failures within some
20 s the second one takes the time without. `benchmarks.goodput` has the default.

In the times: to notice the death, Flink's restart with its delay, the way of the state and the
rows, and the first step. Not in them: rows between the last checkpoint and the kill, which are
trained on again (half a second's at most here), a large model, several workers, and a host
that is gone, with its spares. The 95th percentile of twelve lies between the greatest two.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import headrace.pytorch
import headrace.tensorflow
from benchmarks import recovery_worker, report
from benchmarks.flink_log import FlinkLog, own_log
from benchmarks.pipelines import cancel, endless_numbers, open_restarting
from benchmarks.processes import parent_of, wait_until
from headrace.config import ExchangeConfig

_FRAMEWORKS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "PyTorch": (headrace.pytorch.train, recovery_worker.train_in_pytorch),
    "TensorFlow": (headrace.tensorflow.train, recovery_worker.train_in_tensorflow),
}
_VICTIMS = ("process", "node")
_SPARE_AFTER_S = 1.0
_UNDISTURBED_S = 3.0
_RANDOM_S = 1.0
_LIMIT_S = 180.0
_ROWS_PER_S = 200
_SOURCE = r"Source: numbers.* \(1/1\)"


def run_recovery(*, kills: int, frameworks: tuple[str, ...]) -> dict[str, Any]:
    """Measure; return for each framework the times with and without a spare, and the bars.

    Args:
        kills: In each job.
        frameworks: Which.
    """
    figures: dict[str, Any] = {}
    bars: dict[str, Any] = {}
    for framework in frameworks:
        with_spare = _measure(framework, kills, _SPARE_AFTER_S)
        without = _measure(framework, kills, None)
        figures[framework] = {"with_spare": with_spare, "without_spare": without}
        bars[f"{framework}: kill -9 to the first step over Flink's restart, p95 in s"] = (
            report.at_most(with_spare["over_flink_s"]["p95"], 3.0)
        )
    return {"kills": kills, "restart_delay_s": 0.1, "recovery": figures, "bars": bars}


def _measure(framework: str, kills: int, spare_after_s: float | None) -> dict[str, Any]:
    """Run a job, kill its worker again and again, and return the spread of the times."""
    train, entry = _FRAMEWORKS[framework]
    chance = random.Random(kills)  # noqa: S311 - moments, no secrets
    over, flinks, all_s = [], [], []
    by_victim: dict[str, list[float]] = {each: [] for each in _VICTIMS}
    with tempfile.TemporaryDirectory(prefix="headrace-recovery-") as folder:
        marks = Path(folder, "marks")
        marks.mkdir()
        t_env = open_restarting(Path(folder))
        log = FlinkLog()
        job = train(
            endless_numbers(t_env, _ROWS_PER_S),
            partial(entry, marks=marks),
            exchange=ExchangeConfig(batch_rows=16),
            name="recovery",
            spare_after_s=spare_after_s,
        ).submit()
        try:
            seen: set[int] = set()
            victim, _ = _first_mark(marks, seen)
            for kill in range(1, kills + 1):
                if spare_after_s is None:
                    threading.Event().wait(_UNDISTURBED_S)
                else:
                    _await_spare(log, kill)
                threading.Event().wait(chance.uniform(0, _RANDOM_S))
                pid = victim if kill % 2 else parent_of(victim)
                began = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                victim, stepped = _first_mark(marks, seen)
                runs = log.await_run(_SOURCE, began, limit_s=_LIMIT_S)
                all_s.append(stepped - began)
                flinks.append(runs - began)
                over.append(stepped - runs)
                by_victim[_VICTIMS[1 - kill % 2]].append(stepped - began)
                print(
                    f"{framework}, spare after {spare_after_s} s, kill {kill} of "
                    f"{_VICTIMS[1 - kill % 2]}: {all_s[-1]:.2f} s, Flink {flinks[-1]:.2f} s",
                    flush=True,
                )
        finally:
            cancel(job, limit_s=_LIMIT_S)
    return {
        "over_flink_s": report.percentiles(over),
        "kill_to_first_step_s": report.percentiles(all_s),
        "kill_to_first_step_s_by_victim": {
            victim: report.percentiles(each) for victim, each in by_victim.items() if each
        },
        "flinks_restart_s": report.percentiles(flinks),
    }


def _await_spare(log: FlinkLog, number: int) -> None:
    wait_until(lambda: len(log.spares()) >= number, limit_s=_LIMIT_S, what=f"spare {number}")


def _first_mark(marks: Path, seen: set[int]) -> tuple[int, float]:
    """Wait for the first step of a process that is not in `seen`; add it there.

    Where another attempt has followed before anybody looked, and has made a step as well, both
    are seen: the recovery was over with the first, and the last one is what runs.

    Returns:
        The pid of what runs, and the instant of the first step.
    """
    found: dict[float, int] = {}

    def has_stepped() -> bool:
        for path in marks.glob(f"{recovery_worker.MARK}*"):
            pid = int(path.name.removeprefix(recovery_worker.MARK))
            if pid not in seen:
                found[float(path.read_text())] = pid
        return bool(found)

    wait_until(has_stepped, limit_s=_LIMIT_S, what="the first step")
    seen.update(found.values())
    return found[max(found)], min(found)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("recovery", arguments)
    with own_log():
        if options.smoke:
            figures = run_recovery(kills=1, frameworks=("PyTorch",))
        else:
            figures = run_recovery(kills=12, frameworks=("PyTorch", "TensorFlow"))
        print(report.write_result("recovery", figures, options.results).read_text())


if __name__ == "__main__":
    main()
