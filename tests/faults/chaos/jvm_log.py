"""What the log of the tests' JVM says of one job's processes: from outside they look alike."""

from __future__ import annotations

import re
from pathlib import Path

from pyflink.java_gateway import get_gateway

__all__ = ["JvmLog"]

_STARTED = re.compile(r"\[[^\]]*?( spare)?\] started as process (\d+)")
_TAKEN = re.compile(r"goes on in spare node process (\d+)")
# Not the last words of a master that has died, which the log has once more behind its end.
_GATHERED = re.compile(r"\[am-0\] .*GATHERING --.*--> RUNNING")


class JvmLog:
    """The log from now on. Needs PyFlink's gateway, whose JVM has a file of its own."""

    def __init__(self) -> None:
        self._path = Path(get_gateway().jvm.java.lang.System.getProperty("log.file"))
        self._begin = self._path.stat().st_size

    def nodes(self) -> tuple[set[int], set[int]]:
        """Return the pids of nodes and masters that the job has had, and of its spare nodes.

        A spare that was taken is among the first. A process that has only just been started
        may be in none.
        """
        job: set[int] = set()
        spares: set[int] = set()
        for line in self._text().splitlines():
            if (found := _STARTED.search(line)) is not None:
                pid = int(found[2])
                (spares if found[1] else job).add(pid)
                (job if found[1] else spares).discard(pid)  # the number of one that has ended
            elif (found := _TAKEN.search(line)) is not None:
                job.add(int(found[1]))
                spares.discard(int(found[1]))
        return job, spares

    def gatherings(self) -> int:
        """Return how often a master has had all its nodes."""
        return len(_GATHERED.findall(self._text()))

    def _text(self) -> str:
        with self._path.open("rb") as file:
            file.seek(self._begin)
            return file.read().decode(errors="replace")
