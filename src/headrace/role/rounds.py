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
* **at a barrier** of a Flink checkpoint (`headrace.role.barriers`): it has used up the rows
  before it, and adds nothing until the barrier is over. It joins at once;
* **ended**: its input has ended, for this pass or for good; it adds nothing. It may be at a
  barrier as well.

====================================  ==========================================================
wait                                  ends when
====================================  ==========================================================
round, for the slowest worker         all have joined: an active one after its batch, an idle
                                      one after ``idle_after_s``, one at a barrier or ended at
                                      once. A dead peer closes its connection: an error at once.
                                      A peer that is alive but never joins:
                                      ``timeouts.collective_timeout_s``
idle worker, for input                a batch or a barrier comes, or its input ends. After a
                                      round in which *nobody* had rows it waits up to
                                      ``IDLE_POLL_S`` before the next, so idle workers do not
                                      spin
worker at a barrier, for the others   a round in which all that get barriers are at the same
                                      one: each answers it then, at this step (the *common
                                      barrier*). A quiet round in which somebody is at a later
                                      one: its own was aborted, it drops it. The operator says
                                      that it was aborted. Paced like an idle one
ended worker, at the end of a pass    a round in which all workers are ended: they see the same
                                      sum, so all cross into the next pass together, with the
                                      barriers that they hold
finished worker                       a round in which all workers are finished: all leave in
                                      it, and answer what they hold
====================================  ==========================================================

An entry function that leaves its loop early is *finished* when it returns, and shadows until
the others are. A round without any row changes nothing. One worker alone makes no rounds:
`headrace.role.alone`.

Why the others reach the barrier. A worker's rows before it wait for nobody who is at it: those
others take every step as shadows, and their operators have passed the barrier on to nobody
yet, so nothing downstream is held up. Upstream, rows behind a barrier may block a sender, but
one that has sent the barrier to one worker has sent it to all. What is left, a barrier that one
worker never gets because the checkpoint was aborted before it came, ends in one of the two ways
above; the operator aborts it itself after ``timeouts.checkpoint_hold_timeout_s``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from time import monotonic
from typing import Any, Literal, TypeAlias, TypeVar

from headrace.role.barriers import Barriers
from headrace.role.reporting import REPORT_EVERY_S, wait_patiently
from headrace.role.roll_call import call_roll

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
        at_barrier: Workers at a barrier of a checkpoint; which, they say when nobody is active.
        rates: Learning rates of an active worker, always the same number of them; the sums over
            the active workers.
    """

    rows: float = 0.0
    active: int = 0
    ended: int = 0
    finished: int = 0
    explicit: int = 0
    at_barrier: int = 0
    rates: tuple[float, ...] = ()

    def to_list(self, rates: int = 1) -> list[float]:
        """Return the numbers in the order in which they travel, with that many rates."""
        counts = (self.active, self.ended, self.finished, self.explicit, self.at_barrier)
        return [float(self.rows), *map(float, counts), *(self.rates or (0.0,) * rates)]

    @classmethod
    def from_list(cls, numbers: list[float]) -> Tallies:
        """Return the tallies of such a list."""
        rows, active, ended, finished, explicit, at_barrier, *rates = numbers
        return cls(
            rows=rows,
            active=round(active),
            ended=round(ended),
            finished=round(finished),
            explicit=round(explicit),
            at_barrier=round(at_barrier),
            rates=tuple(rates),
        )


class Rounds(ABC):
    """One worker's part in the common rounds; a framework says what a round carries.

    Thread model: rounds of one worker never overlap; a subclass that is called from several
    threads sees to that. A common barrier is answered on the thread that makes the shadow
    rounds: the one that asks for rows.

    Args:
        world_size: Workers in the group, at least 2.
        reduction: How the loss is reduced over the rows of a batch.
        idle_after_s: How long a worker waits for input before it lets the others go on, in
            seconds.
        rates: Learning rates in the tallies.
    """

    def __init__(
        self, *, world_size: int, reduction: Reduction, idle_after_s: float, rates: int = 1
    ) -> None:
        self.steps = 0
        self._world_size = world_size
        self._is_mean = reduction == "mean"
        self._idle_after_s = idle_after_s
        self._rates = rates
        self._pending_rows = 0
        self._last_rows = 1
        self._expected_rows = 1.0
        self._is_quiet = True
        self._is_over = False
        self._barriers: Barriers | None = None
        self._barrier_members = 0

    @abstractmethod
    def finish_after_step(self, attend: Callable[[], object]) -> None:
        """Finish after the next step, the last; `finish` comes anyway once the loop is left."""

    @abstractmethod
    def close(self) -> None:
        """Give the optimizer back as it was. Idempotent."""

    @abstractmethod
    def _add_numbers(self, numbers: list[float]) -> list[float]:
        """All-reduce a few numbers; float32 is enough for them."""

    @abstractmethod
    def _add_nothing(self, mine: Tallies) -> Tallies:
        """All-reduce the vector with the tallies `mine` and zeros in it; keep the sum."""

    @abstractmethod
    def _step_as_shadow(self, totals: Tallies) -> None:
        """Apply the sum of the round just made, as the active workers do."""

    def _before_shadows(self) -> AbstractContextManager[object]:
        """Return what is entered while this worker makes shadow rounds."""
        return nullcontext()

    def _before_answer(self) -> object:
        """Make the state that is captured now that of the last common step."""
        return None

    @property
    def pending_rows(self) -> int:
        """Rows that the loop has been given since its last step."""
        return self._pending_rows

    def count(self, rows: int) -> None:
        """Note that the loop has been given `rows` more rows."""
        self._pending_rows += rows

    def use_barriers(self, barriers: Barriers | None) -> None:
        """Answer barriers in common from now on. Collective, before the first round.

        Args:
            barriers: Of this worker; None if it gets none, as without input: then the others'
                are answered without it.
        """
        found = call_roll(self._add_numbers, None if barriers is None else barriers.newest + 1)
        self._barriers = barriers
        self._barrier_members = found.present
        if barriers is not None:
            barriers.begin_common(found.highest - 1)

    def common_part(self) -> dict[str, Any]:
        """Return what all workers hold alike at a common barrier, beside the model."""
        return {"steps": self.steps, "expected_rows": self._expected_rows}

    def own_part(self) -> dict[str, Any]:
        """Return what is this worker's own while a barrier is answered; may hold arrays."""
        return {"pending_rows": self._pending_rows, "last_rows": self._last_rows}

    def restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:
        """Take up what `common_part` and `own_part` returned, before the first round.

        Args:
            common: That of one worker alone has the steps only.
            own: Empty in a worker that is new.
        """
        self.steps = common["steps"]
        self._expected_rows = common.get("expected_rows", self._expected_rows)
        self._pending_rows = own.get("pending_rows", 0)
        self._last_rows = own.get("last_rows", self._last_rows)

    def wait(self, poll: Callable[[float], _T | None]) -> _T:
        """Wait for own input while taking part in the others' steps.

        Args:
            poll: Called with a time-out in seconds; returns None if nothing came within it, or
                at once where a barrier has been reached.

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

    @property
    def _is_at_barrier(self) -> bool:
        return self._barriers is not None and self._barriers.held is not None

    def _poll_patiently(self, poll: Callable[[float], _T | None]) -> _T | None:
        """Wait for own rows before shadowing the others, in parts: a report must not wait."""
        deadline = monotonic() + self._idle_after_s
        left_s = 0.0 if self._is_at_barrier else self._idle_after_s
        while (event := poll(min(left_s, REPORT_EVERY_S))) is None:
            left_s = deadline - monotonic()
            if left_s <= 0 or self._is_at_barrier:
                return None
        return event

    def _make_shadow_round(self, *, ended: bool, finished: bool) -> Tallies:
        mine = Tallies(
            ended=int(ended), finished=int(finished), at_barrier=int(self._is_at_barrier)
        )
        totals = self._vote(mine)
        if totals is None or totals.active:
            totals = self._add_nothing(mine)
            if totals.active:
                self._step_as_shadow(totals)
                self.steps += 1
            else:
                self._is_quiet = True
        if not totals.active and totals.at_barrier:
            self._compare_barriers(totals.at_barrier)
        return totals

    def _compare_barriers(self, at_barrier: int) -> None:
        """Answer the barrier that all are at; drop one that is older than another worker's."""
        if at_barrier < min(2, self._barrier_members):
            return
        held = None if self._barriers is None else self._barriers.held
        found = call_roll(self._add_numbers, held)
        if self._barriers is None or held is None:
            return
        if held < found.highest:
            self._barriers.drop_held()
        elif found.is_unanimous and found.present == self._barrier_members:
            self._before_answer()
            self._barriers.answer_held()

    def _add_tallies(self, mine: Tallies) -> Tallies:
        """All-reduce the tallies alone."""
        return Tallies.from_list(self._add_numbers(mine.to_list(self._rates)))

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
                    self._leave()
                    return
                if totals.ended == self._world_size and not finished:
                    return

    def _leave(self) -> None:
        self._is_over = True
        self._pending_rows = 0  # no step will use them, in a restored job neither
        if self._is_at_barrier:
            self._before_answer()
        if self._barriers is not None:
            self._barriers.end_common()

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
