"""How tests and the entry functions of their jobs wait: for a condition, or for their end.

The functions travel to the processes of a job by value.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn, TypeVar

import cloudpickle

__all__ = ["always", "live_until_ended", "pause_for", "until", "until_settled", "work_for"]

cloudpickle.register_pickle_by_value(sys.modules[__name__])

_Seen = TypeVar("_Seen")
_LOOK_EVERY_S = 0.02


def until(
    look: Callable[[], _Seen | None],
    what: str = "what the test waits for",
    limit_s: float = 60.0,
    explain: Callable[[], str] = lambda: "",
) -> _Seen:
    """Look again and again until something is seen, and return it.

    Args:
        look: What it returns is seen if it is true.
        what: What the failure says that did not come.
        limit_s: Longest wait.
        explain: Called for more text when it did not come.
    """
    deadline = time.monotonic() + limit_s
    while True:
        if seen := look():
            return seen
        if time.monotonic() >= deadline:
            msg = f"no {what} within {limit_s} s\n{explain()}"
            raise AssertionError(msg)
        _look_away()


def until_settled(
    look: Callable[[], _Seen | None], what: str, *, for_s: float, limit_s: float = 60.0
) -> _Seen:
    """Look until the same is seen for `for_s` seconds, and return it."""
    changed_at, last = time.monotonic(), look()

    def settled() -> bool:
        nonlocal changed_at, last
        now = look()
        if now != last:
            changed_at, last = time.monotonic(), now
        return bool(last) and time.monotonic() - changed_at >= for_s

    until(settled, what, limit_s, lambda: f"last seen: {last}")
    assert last
    return last


def always(holds: Callable[[], object], what: str, *, for_s: float) -> None:
    """Look again and again for `for_s` seconds: it must hold at every look."""
    deadline = time.monotonic() + for_s
    while time.monotonic() < deadline:
        assert holds(), what
        _look_away()


def pause_for(seconds: float) -> None:
    """Take so long, as a user's function that waits for something: no core is busy."""
    threading.Event().wait(seconds)


def work_for(seconds: float) -> None:
    """Be as busy as a user's function that takes so long; `pause_for` spares the core."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sum(range(1000))


def live_until_ended() -> NoReturn:
    """Never return: an exception that a signal raises, or SIGKILL, ends the caller."""
    while True:
        _look_away()


def _look_away() -> None:
    time.sleep(_LOOK_EVERY_S)  # noqa: TID251 - the one place where tests look again
