"""Every worker takes every step: who waits for whom, and what ends each wait.

All workers of a group make the same sequence of *rounds*. A round is one all-reduce: each
worker puts in its tallies, its gradients times its rows, and the sum is the gradient of the
union of the rows, which everyone applies through its own copy of the optimizer, so that the
models stay equal. At the start, and after a round without any row, all are *quiet*: then a
round begins with a vote, an all-reduce of the tallies alone, and the rest follows only if
somebody has rows. So waiting costs little, however large the model. A worker joins the next
round

* **active**: its loop steps; it adds its rows and gradients;
* **idle**: it waits for input and none came for ``idle_after_s``; it adds nothing (a *shadow
  step*) and looks for own input between rounds, without waiting;
* **ended**: its input has ended, for this pass or for good; it adds nothing.

====================================  ==========================================================
wait                                  ends when
====================================  ==========================================================
round, for the slowest worker         all have joined: an active one after its batch, an idle
                                      one after ``idle_after_s``, an ended one at once. A dead
                                      peer closes its connection: an error at once. A peer that
                                      is alive but never joins:
                                      ``timeouts.collective_timeout_s``
idle worker, for input                a batch comes, or its input ends. After a round in which
                                      *nobody* had rows it waits up to ``IDLE_POLL_S`` before
                                      the next, so idle workers do not spin
ended worker, at the end of a pass    a round in which all workers are ended: they see the same
                                      sum, so all cross into the next pass together
finished worker                       a round in which all workers are finished: all leave in it
====================================  ==========================================================
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from headrace.role.reporting import REPORT_EVERY_S, wait_patiently

__all__ = ["IDLE_POLL_S", "Rounds", "Tallies"]

IDLE_POLL_S = 0.03
"""Pause between two rounds while no worker has rows, in seconds."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Tallies:
    """What the workers say about themselves in one round; after the sum, about all of them.

    Attributes:
        rows: Rows behind this round's gradient.
        active: Workers whose own loop made the step (the others take part as shadows).
        ended: Workers whose input has ended, for this pass or for good.
        finished: Workers that will contribute no row any more.
        rate: Learning rate of an active worker; the sum over them.
    """

    rows: float = 0.0
    active: int = 0
    ended: int = 0
    finished: int = 0
    rate: float = 0.0

    def to_list(self) -> list[float]:
        """Return the numbers in the order in which they travel."""
        return [
            self.rows,
            float(self.active),
            float(self.ended),
            float(self.finished),
            self.rate,
        ]

    @classmethod
    def from_list(cls, numbers: list[float]) -> Tallies:
        """Return the tallies of such a list."""
        rows, active, ended, finished, rate = numbers
        return cls(rows, round(active), round(ended), round(finished), rate)


class Rounds(ABC):
    """One worker's part in the common rounds; a framework says what a round carries.

    Thread model: rounds of one worker never overlap; a subclass that is called from several
    threads sees to that.

    Args:
        world_size: Workers in the group.
        idle_after_s: How long a worker waits for input before it lets the others go on, in
            seconds.
    """

    def __init__(self, *, world_size: int, idle_after_s: float) -> None:
        self.steps = 0
        self._world_size = world_size
        self._idle_after_s = idle_after_s
        self._is_quiet = True
        self._is_over = False

    @abstractmethod
    def _add_tallies(self, mine: Tallies) -> Tallies:
        """All-reduce the tallies alone."""

    @abstractmethod
    def _add_nothing(self, mine: Tallies) -> Tallies:
        """All-reduce the vector with the tallies `mine` and zeros in it; keep the sum."""

    @abstractmethod
    def _step_as_shadow(self, totals: Tallies) -> None:
        """Apply the sum of the round just made, as the active workers do."""

    def _before_shadows(self) -> AbstractContextManager[object]:
        """Return what is entered while this worker makes shadow rounds."""
        return nullcontext()

    def wait(self, poll: Callable[[float], _T | None]) -> _T:
        """Wait for own input while taking part in the others' steps.

        Args:
            poll: Called with a time-out in seconds; returns None if nothing came within it.

        Returns:
            What `poll` returned.
        """
        event = self._poll_patiently(poll)
        if event is not None:
            return event
        if self._is_over:
            return wait_patiently(poll)
        with self._before_shadows():
            while event is None:
                totals = self._make_shadow_round(ended=False, finished=False)
                event = poll(0.0 if totals.active else IDLE_POLL_S)
        return event

    def end_pass(self, attend: Callable[[], object]) -> None:
        """Take part until every worker has ended its pass over the input.

        Args:
            attend: Called between rounds, for what must not wait as long as the others train.
        """
        self._shadow_until(attend, finished=False)

    def finish(self, attend: Callable[[], object]) -> None:
        """Take part until every worker is finished. Later calls return at once."""
        self._shadow_until(attend, finished=True)

    def _poll_patiently(self, poll: Callable[[float], _T | None]) -> _T | None:
        """Wait for own rows before shadowing the others, in parts: a report must not wait."""
        deadline = monotonic() + self._idle_after_s
        left_s = self._idle_after_s
        while (event := poll(min(left_s, REPORT_EVERY_S))) is None:
            left_s = deadline - monotonic()
            if left_s <= 0:
                return None
        return event

    def _make_shadow_round(self, *, ended: bool, finished: bool) -> Tallies:
        mine = Tallies(ended=int(ended), finished=int(finished))
        totals = self._vote(mine)
        if totals is not None and not totals.active:
            return totals
        totals = self._add_nothing(mine)
        if totals.active:
            self._step_as_shadow(totals)
            self.steps += 1
        else:
            self._is_quiet = True
        return totals

    def _vote(self, mine: Tallies) -> Tallies | None:
        """Where all are quiet, ask whether anybody has rows; None where nobody is."""
        if not self._is_quiet:
            return None
        totals = self._add_tallies(mine)
        self._is_quiet = not totals.active
        return totals

    def _shadow_until(self, attend: Callable[[], object], *, finished: bool) -> None:
        if self._is_over:
            return
        with self._before_shadows():
            while True:
                totals = self._make_shadow_round(ended=True, finished=finished)
                attend()
                if totals.finished == self._world_size:
                    self._is_over = True
                    return
                if totals.ended == self._world_size and not finished:
                    return
