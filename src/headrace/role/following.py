"""Follows what the processes of a job save, while they do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from headrace.role.saved import list_saved

__all__ = ["LOOK_EVERY_S", "follow_saved"]

LOOK_EVERY_S = 0.5
"""Pause between two looks into the directory, in seconds."""


def follow_saved(
    directory: Path,
    *,
    timeout_s: float | None,
    on_look: Callable[[], object],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[int, Path]]:
    """Iterate over what is saved in `directory`, as fast as the caller can follow.

    At each step the newest of what has appeared since the last one comes, at first of what is
    there already; older ones among that are passed over, so that what is told never goes back.
    Each path comes once at most: a file that is saved again under its step does not come again,
    a directory does, since it has got another path and its former one is gone.

    Thread model: blocks the thread that iterates, in pauses of `LOOK_EVERY_S` seconds.

    Args:
        directory: The job's checkpoint directory; it may not exist yet.
        timeout_s: Longest wait for the next one, in seconds; the iteration ends then. None
            waits for as long as the process lives.
        on_look: Called before each pause.
        clock: Monotonic seconds.

    Yields:
        Step and path.
    """
    seen: set[Path] = set()
    pause = threading.Event()
    deadline = _deadline(clock, timeout_s)
    while True:
        news = [each for each in list_saved(directory) if each.path not in seen]
        if news:
            seen.update(each.path for each in news)
            newest = news[-1]
            yield newest.step, newest.path
            deadline = _deadline(clock, timeout_s)
            continue
        left_s = deadline - clock()
        if left_s <= 0:
            return
        on_look()
        pause.wait(min(LOOK_EVERY_S, left_s))


def _deadline(clock: Callable[[], float], timeout_s: float | None) -> float:
    return float("inf") if timeout_s is None else clock() + timeout_s
