"""What Flink's log file says: the only place where it tells when a task runs again."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

import pyflink.java_gateway
from pyflink.java_gateway import get_gateway

from benchmarks.processes import wait_until
from headrace._environ import set_environment_default

__all__ = ["FlinkLog", "own_log"]


@contextmanager
def own_log() -> Iterator[None]:
    """Give the JVM that this program will start a log file of its own: PyFlink's is shared."""
    with tempfile.TemporaryDirectory(prefix="headrace-log-") as folder:
        if pyflink.java_gateway._gateway is None:  # noqa: SLF001 - else it has its file
            set_environment_default("FLINK_LOG_DIR", folder)
        yield


class FlinkLog:
    """What the log of this program's JVM says from now on; needs its gateway."""

    def __init__(self) -> None:
        path = get_gateway().jvm.java.lang.System.getProperty("log.file")
        self._path = Path(path)
        self._begin = self._path.stat().st_size

    def spares(self) -> list[int]:
        """Return the pids of spare processes that were ready, in order."""
        return [int(pid) for pid in re.findall(r"spare\] process (\d+) is ready", self._text())]

    def await_run(self, task: str, after_s: float, *, limit_s: float) -> float:
        """Wait until a task runs again, and return when its execution began to run.

        Args:
            task: Regular expression for the task's name in the log, with the subtask.
            after_s: The execution is the first one after this instant on the monotonic clock,
                as is what is returned.
            limit_s: Longest wait.
        """
        found: list[float] = []

        def runs() -> bool:
            found[:] = [each for each in self._runs_s(task) if each > after_s]
            return bool(found)

        wait_until(runs, limit_s=limit_s, what=f"a run of {task} in {self._path}")
        return min(found)

    def _runs_s(self, task: str) -> list[float]:
        pattern = re.compile(
            rf"^(\S+ \S+) .*{task}.* switched from INITIALIZING to RUNNING", re.MULTILINE
        )
        shift = time.monotonic() - datetime.now(timezone.utc).timestamp()
        return [
            datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp() + shift
            for at in pattern.findall(self._text())
        ]

    def _text(self) -> str:
        with self._path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")
