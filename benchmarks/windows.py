"""Steps per second within windows of a job whose worker notes when its steps end."""

from __future__ import annotations

import bisect
import threading
import time
from pathlib import Path

__all__ = ["StepLog", "pause_until"]


class StepLog:
    """What a worker writes: a line for each step, with the monotonic clock's seconds.

    Args:
        path: Of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def has_steps(self) -> bool:
        """Whether there is one."""
        return self._path.exists() and self._path.stat().st_size > 0

    def rate(self, began: float, ended: float) -> float:
        """Return steps/s between the first and the last step within two instants."""
        instants = [float(line) for line in self._path.read_text().splitlines()]
        first = bisect.bisect_left(instants, began)
        last = bisect.bisect_right(instants, ended) - 1
        assert last > first, f"{last - first + 1} steps between {began} and {ended}"
        return (last - first) / (instants[last] - instants[first])


def pause_until(instant: float) -> None:
    """Wait until the monotonic clock is there; at once if it is."""
    threading.Event().wait(max(0.0, instant - time.monotonic()))
