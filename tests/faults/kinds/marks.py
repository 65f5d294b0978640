"""When the workers of which attempt made their first steps, by the marks that they leave."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.faults.kinds.growing import Growing

__all__ = ["Marks"]


class Marks:
    """The steps of a job (`tests.faults.chaos.jobs.Places.steps`).

    The instants are those at which the workers wrote them, on the machine's monotonic clock.

    Args:
        steps: Folder of the marks.
        workers: How many make an attempt.
    """

    def __init__(self, steps: Path, workers: int) -> None:
        self._marks = Growing(steps, "*-*")
        self._workers = workers
        self._firsts: dict[int, dict[str, float]] = defaultdict(dict)

    def attempt(self) -> int:
        """Return the latest attempt of which a worker has made a step."""
        self._look()
        return max(self._firsts)

    def back_s(self, former: int) -> float | None:
        """Return when the last worker had made its first step in an attempt after that one.

        Of several such attempts in the first one of which all workers have; None as long as
        there is none.
        """
        self._look()
        for attempt, firsts in sorted(self._firsts.items()):
            if attempt > former and len(firsts) == self._workers:
                return max(firsts.values())
        return None

    def _look(self) -> None:
        for name, line in self._marks.lines():
            worker = name.partition("-")[0]
            instant, _, attempt = line.split()
            firsts = self._firsts[int(attempt)]
            firsts[worker] = min(float(instant), firsts.get(worker, float(instant)))
