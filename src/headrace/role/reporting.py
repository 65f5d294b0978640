"""Keeps what an entry function reports, and sends it at a bearable rate."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from headrace.errors import DataError
from headrace.role.link import RoleLink

__all__ = ["REPORT_EVERY_S", "Reporter", "wait_patiently"]

REPORT_EVERY_S = 0.2
_T = TypeVar("_T")


def wait_patiently(poll: Callable[[float], _T | None]) -> _T:
    """Call `poll` with a time-out in seconds until it returns something.

    In parts, since a poll of the input sends reports. What `poll` raises ends the wait: the
    loss of the other side, for example.
    """
    while (result := poll(REPORT_EVERY_S)) is None:
        pass
    return result


class Reporter:
    """Latest reported values and row counts of one process.

    Each thing sent is also a sign that the process gets on: a drain ends one that gives none.
    So waiting sends nothing.

    Thread model: one thread at a time; `note` any. Sends at most every `REPORT_EVERY_S`,
    whenever `update`, `tick` or `flush` is called.
    """

    def __init__(
        self,
        link: RoleLink,
        row_counts: Callable[[], tuple[int, int]],
        clock: Callable[[], float] = time.monotonic,
        place: Callable[[], object] = lambda: None,
    ) -> None:
        """Send over `link`.

        Args:
            link: The line to the node.
            row_counts: Gives rows in and rows out when they are sent.
            clock: Monotonic seconds.
            place: Gives what else changes while the process gets on.
        """
        self._link = link
        self._row_counts = row_counts
        self._clock = clock
        self._values: dict[str, float] = {}
        self._has_news = False
        self._place = place
        self._sent_counts = (0, 0)
        self._sent_place = place()
        self._next_send = -math.inf

    def begin(self) -> None:
        """Tell that the process has begun. The first values wait for no pause behind that."""
        self._link.report({}, *self._row_counts())

    def update(self, values: Mapping[str, Any]) -> None:
        """Replace the latest values under the given names.

        Raises:
            DataError: A value is not one number.
        """
        for name, value in values.items():
            self._values[name] = _number(name, value)
        self._has_news = True
        self.tick()

    def note(self) -> None:
        """Tell with the next `tick` that the process gets on, by what changes nothing else."""
        self._has_news = True

    def tick(self) -> None:
        """Send what is new, if it is time."""
        now = self._clock()
        if now >= self._next_send:
            self._send(now)

    def flush(self) -> None:
        """Send what is new, now."""
        self._send(self._clock())

    def _send(self, now: float) -> None:
        counts, place = self._row_counts(), self._place()
        if self._has_news or counts != self._sent_counts or place != self._sent_place:
            self._link.report(dict(self._values), *counts)
            self._has_news = False
            self._sent_counts, self._sent_place = counts, place
            self._next_send = now + REPORT_EVERY_S


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError  # noqa: TRY301 (float("1") would take it)
        # NumPy's and every framework's way to a plain number, if there is exactly one element.
        return float(value.item() if hasattr(value, "item") else value)
    except (TypeError, ValueError, RuntimeError) as exc:
        msg = f"ctx.report({name}=...) takes one number, not {value!r:.200}"
        raise DataError(msg) from exc
