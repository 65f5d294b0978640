"""How long a stream job takes from kill -9 to the first new step, with and without a spare.

A job of one worker trains on rows, with a checkpoint each half second. At a random moment its
algorithm process, or in turns its node, is killed. What Flink takes by itself is taken off:
from the kill until Flink's log says that the task of the source runs again, with the restart
delay (100 ms) in it. (That of the worker runs when the first record of its master has come, so
that would be too late.) The clock is the machine's monotonic one in all processes.

Each framework has one job with a spare and one without; a kill comes when the spare is ready,
or, where there is none, when the process has run for as long as a spare may take.
"""

from __future__ import annotations

import os
import random
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pyflink.java_gateway
from pyflink.java_gateway import get_gateway

import headrace.pytorch
import headrace.tensorflow
from benchmarks import recovery_worker, report
from benchmarks.lifecycle import percentiles
from benchmarks.pipelines import open_t_env
from benchmarks.processes import wait_until
from headrace import JobHandle
from headrace._environ import set_environment_default
from headrace.config import ExchangeConfig
from headrace.errors import JobFailedError

_FRAMEWORKS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "PyTorch": (headrace.pytorch.train, recovery_worker.train_in_pytorch),
    "TensorFlow": (headrace.tensorflow.train, recovery_worker.train_in_tensorflow),
}
_VICTIMS = ("process", "node")
_SPARE_AFTER_S = 1.0
_UNDISTURBED_S = 3.0
_RANDOM_S = 1.0
_LIMIT_S = 180.0
_OPTIONS = {
    "execution.checkpointing.interval": "500 ms",
    "execution.checkpointing.tolerable-failed-checkpoints": "1000",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "100000",
    "restart-strategy.fixed-delay.delay": "100 ms",
}
_ROWS_PER_S = 200


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
    with tempfile.TemporaryDirectory(prefix="headrace-recovery-") as folder:
        marks = Path(folder, "marks")
        marks.mkdir()
        t_env = open_t_env()
        options = {**_OPTIONS, "execution.checkpointing.dir": Path(folder, "cp").as_uri()}
        for key, value in options.items():
            t_env.get_config().set(key, value)
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
            f"'fields.id.min'='0', 'fields.id.max'='1000', 'rows-per-second'='{_ROWS_PER_S}')"
        )
        log = _Log()
        job = train(
            t_env.from_path("numbers"),
            partial(entry, marks=marks),
            exchange=ExchangeConfig(batch_rows=16),
            name="recovery",
            spare_after_s=spare_after_s,
        ).submit()
        try:
            victim = _first_mark(marks, set())
            seen = {victim}
            for kill in range(1, kills + 1):
                if spare_after_s is None:
                    threading.Event().wait(_UNDISTURBED_S)
                else:
                    log.await_spare(kill)
                threading.Event().wait(chance.uniform(0, _RANDOM_S))
                pid = victim if kill % 2 else _parent(victim)
                began = time.monotonic()
                os.kill(pid, signal.SIGKILL)
                victim = _first_mark(marks, seen)
                seen.add(victim)
                stepped = float((marks / f"{recovery_worker.MARK}{victim}").read_text())
                runs = log.runs_again(kill)
                all_s.append(stepped - began)
                flinks.append(runs - began)
                over.append(stepped - runs)
                print(
                    f"{framework}, spare after {spare_after_s} s, kill {kill} of "
                    f"{_VICTIMS[1 - kill % 2]}: {all_s[-1]:.2f} s, Flink {flinks[-1]:.2f} s",
                    flush=True,
                )
        finally:
            _cancel(job)
    return {
        "over_flink_s": percentiles(over),
        "kill_to_first_step_s": percentiles(all_s),
        "flinks_restart_s": percentiles(flinks),
    }


class _Log:
    """What Flink's log says from now on."""

    def __init__(self) -> None:
        path = get_gateway().jvm.java.lang.System.getProperty("log.file")
        self._path = Path(path)
        self._begin = self._path.stat().st_size

    def await_spare(self, count: int) -> None:
        """Wait until so many spares have been ready."""

        def is_ready() -> bool:
            return len(re.findall(r"spare\] process \d+ is ready", self._text())) >= count

        wait_until(is_ready, limit_s=_LIMIT_S, what=f"spare {count}")

    def runs_again(self, attempt: int) -> float:
        """Return when the source ran in this attempt, on the monotonic clock."""
        pattern = re.compile(
            r"^(\S+ \S+) .*Source: numbers.* \(1/1\)#"
            + str(attempt)
            + r" .*switched from INITIALIZING to RUNNING",
            re.MULTILINE,
        )
        found = pattern.search(self._text())
        assert found is not None, f"attempt {attempt} is not in {self._path}"
        at = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S,%f").astimezone()
        return time.monotonic() - (datetime.now(timezone.utc) - at).total_seconds()

    def _text(self) -> str:
        with self._path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")


def _first_mark(marks: Path, seen: set[int]) -> int:
    """Wait for the first step of a process that was not seen before; return its pid."""

    def new() -> set[int]:
        found = marks.glob(f"{recovery_worker.MARK}*")
        return {int(path.name.removeprefix(recovery_worker.MARK)) for path in found} - seen

    wait_until(lambda: bool(new()), limit_s=_LIMIT_S, what="the first step")
    (pid,) = new()
    return pid


def _parent(pid: int) -> int:
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text[text.rindex(")") + 2 :].split()[1])


def _cancel(job: JobHandle) -> None:
    job.cancel()
    with suppress(JobFailedError):  # that is how a cancelled job ends
        job.wait(show_progress=False, timeout_s=_LIMIT_S)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("recovery", arguments)
    with tempfile.TemporaryDirectory(prefix="headrace-recovery-log-") as folder:
        if pyflink.java_gateway._gateway is None:  # noqa: SLF001 - else it has a log file
            set_environment_default("FLINK_LOG_DIR", folder)  # that of PyFlink is shared
        if options.smoke:
            figures = run_recovery(kills=1, frameworks=("PyTorch",))
        else:
            figures = run_recovery(kills=12, frameworks=("PyTorch", "TensorFlow"))
        print(report.write_result("recovery", figures, options.results).read_text())


if __name__ == "__main__":
    main()
