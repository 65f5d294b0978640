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

An entry function that leaves its loop early is *finished* when it returns, and shadows until
the others are. A round without any row changes nothing. One worker alone makes no rounds:
`headrace.role.alone`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import Literal, TypeAlias, TypeVar

from headrace.role.reporting import REPORT_EVERY_S, wait_patiently

__all__ = ["IDLE_POLL_S", "Reduction", "Rounds", "Tallies"]

IDLE_POLL_S = 0.03
"""Pause between two rounds while no worker has rows, in seconds."""

Reduction: TypeAlias = Literal["mean", "sum"]
"""How a loss is reduced over the rows of a batch."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Tallies:
    """What the workers say about themselves in one round; after the sum, about all of them.

    Attributes:
        rows: Rows behind this round's gradient.
        active: Workers whose own loop made the step (the others take part as shadows).
        ended: Workers whose input has ended, for this pass or for good.
        finished: Workers that will contribute no row any more.
        explicit: Active workers that will still change the gradient before they step.
        rates: Learning rates of an active worker, always the same number of them; the sums over
            the active workers.
    """

    rows: float = 0.0
    active: int = 0
    ended: int = 0
    finished: int = 0
    explicit: int = 0
    rates: tuple[float, ...] = ()

    def to_list(self, rates: int = 1) -> list[float]:
        """Return the numbers in the order in which they travel, with that many rates."""
        counts = (self.active, self.ended, self.finished, self.explicit)
        return [float(self.rows), *map(float, counts), *(self.rates or (0.0,) * rates)]

    @classmethod
    def from_list(cls, numbers: list[float]) -> Tallies:
        """Return the tallies of such a list."""
        rows, active, ended, finished, explicit, *rates = numbers
        return cls(
            rows=rows,
            active=round(active),
            ended=round(ended),
            finished=round(finished),
            explicit=round(explicit),
            rates=tuple(rates),
        )


class Rounds(ABC):
    """One worker's part in the common rounds; a framework says what a round carries.

    Thread model: rounds of one worker never overlap; a subclass that is called from several
    threads sees to that.

    Args:
        world_size: Workers in the group, at least 2.
        reduction: How the loss is reduced over the rows of a batch.
        idle_after_s: How long a worker waits for input before it lets the others go on, in
            seconds.
    """

    def __init__(self, *, world_size: int, reduction: Reduction, idle_after_s: float) -> None:
        self.steps = 0
        self._world_size = world_size
        self._is_mean = reduction == "mean"
        self._idle_after_s = idle_after_s
        self._pending_rows = 0
        self._last_rows = 1
        self._expected_rows = 1.0
        self._is_quiet = True
        self._is_over = False

    @abstractmethod
    def finish_after_step(self, attend: Callable[[], object]) -> None:
        """Finish after the next step, the last; `finish` comes anyway once the loop is left."""

    @abstractmethod
    def close(self) -> None:
        """Give the optimizer back as it was. Idempotent."""

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

    @property
    def pending_rows(self) -> int:
        """Rows that the loop has been given since its last step."""
        return self._pending_rows

    def count(self, rows: int) -> None:
        """Note that the loop has been given `rows` more rows."""
        self._pending_rows += rows

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

    def settle(self, attend: Callable[[], object]) -> None:
        """Take part until the model that is to be saved is the last one: see `finish`."""
        self.finish(attend)

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

    def _take_rows(self, given: int | None = None) -> int:
        """Return the rows behind a step: `given`, those counted, or those of the last step."""
        self._last_rows = given or self._pending_rows or self._last_rows
        self._pending_rows = 0
        return self._last_rows

    def _weight_of(self, rows: float) -> float:
        """Return what this worker's gradients are multiplied by before the sum."""
        return rows / self._expected_rows if self._is_mean else 1.0

    def _divisor_of(self, totals: Tallies) -> float:
        """Return what the summed gradients are divided by; once in each round."""
        # All have divided by the rows of the last step already; mostly that was right.
        divisor = totals.rows / self._expected_rows if self._is_mean else 1.0
        self._expected_rows = totals.rows
        return divisor
