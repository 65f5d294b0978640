"""Every worker makes every step: who waits for whom, and what ends each wait.

All workers make the same sequence of *rounds*. A round is one all-reduce of one vector: each
worker's tallies, gradients times rows, and buffers times rows. Its result is the gradient of
the union of the rows, and everyone applies it through its own copy of the optimizer, so that
parameters and optimizer state stay equal everywhere. At the start, and after a round without
any row, all are *quiet*: then a round begins with a vote, an all-reduce of the tallies alone,
and the vector follows only if somebody has rows. So waiting costs little, however large the
model. A worker joins the next round

* **active**: its loop calls ``optimizer.step()``; it adds its rows and gradients;
* **idle**: it waits for input in ``ctx.batches`` and none came for ``idle_after_s``; it adds
  nothing (a *shadow step*) and looks for own input between rounds, without waiting;
* **ended**: its input has ended, for this pass or for good; it adds nothing.

Who waits, and what ends the wait:

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
the others are. A round without any row changes nothing. One worker alone makes no rounds.

Gradients that the loop changes after the reduction (clipping) must reach the shadows as well.
With `before_step` each worker makes the change itself; after an explicit `reduce_now` the
active workers' changed gradient is shared in a second round, only where there is a shadow.

Thread model: everything is called on the thread of the entry function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol, TypeVar

import torch

from headrace.errors import UsageError
from headrace.pytorch.flat import FlatGradients, Reduction, Tallies
from headrace.pytorch.rates import rates_of, require_same_rates, take_rates
from headrace.role import REPORT_EVERY_S, wait_patiently

__all__ = ["IDLE_POLL_S", "Adder", "Lockstep", "Scheduler"]

IDLE_POLL_S = 0.03
"""Pause between two rounds while no worker has rows, in seconds."""

_T = TypeVar("_T")


class Adder(Protocol):
    """Adds the vectors of all workers."""

    @property
    def world_size(self) -> int:
        """Number of workers, at least 2."""

    def add(self, vector: torch.Tensor) -> None:
        """Replace `vector` by the sum over all workers. Blocks until all have called it.

        Raises:
            CollectiveError: A peer ended, or did not come within the limit.
        """


class Scheduler(Protocol):
    """The one method that a learning-rate scheduler needs here."""

    def step(self) -> None:
        """Advance by one optimizer step."""


class Lockstep:
    """One worker's part in the common steps.

    Args:
        vector: This model's gradients.
        optimizer: Steps the parameters of `vector`; its ``step`` is hooked until `close`.
        scheduler: Advanced after every shadow step, as the entry function does after its own.
            None: a shadow step takes the active workers' learning rates.
        adder: The all-reduce.
        reduction: How the loss is reduced over the rows of a batch.
        before_step: Called on every worker between reduction and step, for example to clip.
        idle_after_s: How long a worker waits for input before it lets the others go on, in
            seconds.
    """

    def __init__(
        self,
        vector: FlatGradients,
        optimizer: torch.optim.Optimizer,
        scheduler: Scheduler | None,
        adder: Adder,
        *,
        reduction: Reduction = "mean",
        before_step: Callable[[], object] | None = None,
        idle_after_s: float = 0.1,
    ) -> None:
        self.steps = 0
        self._vector = vector
        self._optimizer = optimizer
        self._scheduler = scheduler
        self._adder = adder
        self._reduction = reduction
        self._before_step = before_step
        self._idle_after_s = idle_after_s
        self._pending_rows = 0
        self._given_rows: int | None = None
        self._last_rows = 1
        self._expected_rows = 1.0
        self._explicit: Tallies | None = None
        self._is_shadow_step = False
        self._is_quiet = True
        ballot = Tallies().to_list(vector.groups)
        self._ballot = torch.tensor(ballot, device=vector.vector.device)
        self._attend_last: Callable[[], object] | None = None
        self._owes_schedule = False
        self._is_over = False
        self._hooks = [
            optimizer.register_step_pre_hook(self._on_step),
            optimizer.register_step_post_hook(self._on_stepped),
        ]

    @property
    def pending_rows(self) -> int:
        """Rows handed out since the last step."""
        return self._pending_rows

    def count(self, rows: int) -> None:
        """Note that the loop has been given `rows` more rows."""
        self._pending_rows += rows

    def give_rows(self, rows: int) -> None:
        """Set the rows behind the next step, whatever was counted."""
        self._given_rows = rows

    def close(self) -> None:
        """Unhook the optimizer. Idempotent."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def wait(self, poll: Callable[[float], _T | None]) -> _T:
        """Wait for own input while taking part in the others' steps.

        Args:
            poll: Called with a time-out in seconds; returns None if nothing came within it.

        Returns:
            What `poll` returned.
        """
        self._require_no_open_step()
        event = self._poll_patiently(poll)
        if event is not None:
            return event
        if self._is_over:
            return wait_patiently(poll)
        with self._keeping_gradients():
            while event is None:
                totals = self._make_shadow_round(ended=False, finished=False)
                event = poll(0.0 if totals.active else IDLE_POLL_S)
        return event

    def _poll_patiently(self, poll: Callable[[float], _T | None]) -> _T | None:
        """Wait for own rows before shadowing the others, in parts: a report must not wait."""
        deadline = monotonic() + self._idle_after_s
        left_s = self._idle_after_s
        while (event := poll(min(left_s, REPORT_EVERY_S))) is None:
            left_s = deadline - monotonic()
            if left_s <= 0:
                return None
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

    def finish_after_step(self, attend: Callable[[], object]) -> None:
        """Finish right after the loop's next step, which uses the last rows."""
        self._attend_last = attend

    def reduce_now(self) -> None:
        """Make the union gradient available before ``optimizer.step()``, which then skips it.

        Raises:
            UsageError: There was no step since the last call.
            CollectiveError: A peer ended, or did not come within the limit.
        """
        self._require_no_open_step()
        self._explicit = self._make_active_round(explicit=True)

    def _on_step(
        self, _optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if self._is_shadow_step:
            return
        if _has_closure(args, kwargs):
            msg = (
                "ctx.data_parallel: optimizer.step(closure) computes gradients inside the "
                "step, where they cannot be reduced; call backward() first and step() without "
                "closure"
            )
            raise UsageError(msg)
        totals = self._explicit
        if totals is None:
            totals = self._make_active_round(explicit=False)
        self._explicit = None
        if totals.explicit and totals.active < self._adder.world_size:
            self._share_changed_gradient(is_active=True)
        if self._before_step is not None:
            self._before_step()

    def _on_stepped(
        self, _optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]
    ) -> None:
        if self._is_shadow_step or self._attend_last is None:
            return
        attend, self._attend_last = self._attend_last, None
        # The loop would advance the scheduler only after the shadow steps that come now.
        self._owes_schedule = self._scheduler is not None
        self.finish(attend)

    def _make_active_round(self, *, explicit: bool) -> Tallies:
        if self._is_over:
            raise UsageError(_OVER)
        rows = self._take_rows()
        rates = rates_of(self._optimizer, self._vector.groups)
        mine = Tallies(rows=rows, active=1, explicit=int(explicit), rates=rates)
        self._vote(mine)
        weight = 1.0 if self._reduction == "sum" else rows / self._expected_rows
        self._vector.load(mine, weight=weight)
        totals = self._add()
        require_same_rates(rates, totals)
        self._store(totals)
        self.steps += 1
        return totals

    def _make_shadow_round(self, *, ended: bool, finished: bool) -> Tallies:
        mine = Tallies(ended=int(ended), finished=int(finished))
        totals = self._vote(mine)
        if totals is not None and not totals.active:
            return totals
        self._vector.clear(mine)
        totals = self._add()
        if not totals.active:
            self._is_quiet = True
            return totals
        self._store(totals)
        if totals.explicit:
            self._share_changed_gradient(is_active=False)
        self._step_as_shadow(totals)
        return totals

    def _step_as_shadow(self, totals: Tallies) -> None:
        if self._scheduler is None:
            take_rates(self._optimizer, totals)
        if self._owes_schedule and self._scheduler is not None:
            self._owes_schedule = False
            self._scheduler.step()
        if self._before_step is not None:
            self._before_step()
        self._is_shadow_step = True
        try:
            self._optimizer.step()
        finally:
            self._is_shadow_step = False
        if self._scheduler is not None:
            self._scheduler.step()
        self.steps += 1

    def _vote(self, mine: Tallies) -> Tallies | None:
        """Where all are quiet, ask whether anybody has rows; None where nobody is."""
        if not self._is_quiet:
            return None
        self._ballot.copy_(torch.tensor(mine.to_list(self._vector.groups)))
        self._adder.add(self._ballot)
        totals = Tallies.from_list(self._ballot.tolist())
        self._is_quiet = not totals.active
        return totals

    def _share_changed_gradient(self, *, is_active: bool) -> None:
        if is_active:
            self._vector.load(Tallies(rows=1.0, active=1), weight=1.0)
        else:
            self._vector.clear(Tallies())
        totals = self._add()
        self._vector.store(gradients_over=totals.active, totals=totals)

    def _shadow_until(self, attend: Callable[[], object], *, finished: bool) -> None:
        if self._is_over:
            return
        self._require_no_open_step()
        world_size = self._adder.world_size
        with self._keeping_gradients():
            while True:
                totals = self._make_shadow_round(ended=True, finished=finished)
                attend()
                if totals.finished == world_size:
                    self._is_over = True
                    return
                if totals.ended == world_size and not finished:
                    return

    def _require_no_open_step(self) -> None:
        """A shadow round here would be taken for the end of the open step by the others."""
        if self._explicit is not None:
            raise UsageError(_NO_STEP)

    def _take_rows(self) -> int:
        rows = self._given_rows or self._pending_rows or self._last_rows
        self._given_rows = None
        self._pending_rows = 0
        self._last_rows = rows
        return rows

    def _add(self) -> Tallies:
        self._adder.add(self._vector.vector)
        return self._vector.tallies()

    def _store(self, totals: Tallies) -> None:
        # All have divided by the rows of the last step already; mostly that was right.
        over = 1.0 if self._reduction == "sum" else totals.rows / self._expected_rows
        self._expected_rows = totals.rows
        self._vector.store(gradients_over=over, totals=totals)

    @contextmanager
    def _keeping_gradients(self) -> Iterator[None]:
        # Gradients of a half-accumulated own step must survive the steps of the others.
        kept = self._vector.take_gradients()
        try:
            yield
        finally:
            self._vector.put_gradients(kept)


_OVER = (
    "optimizer.step() after the common training has ended: all workers have used up their "
    "input and the others may be gone. Train inside the loop over ctx.batches, or leave "
    "ctx.data_parallel out and use torch's own DistributedDataParallel."
)

_NO_STEP = (
    "ctx.all_reduce_gradients() without optimizer.step() after it: the other workers are in "
    "that step already. Call step() after it every time; to skip a step, zero the "
    "gradients."
)


def _has_closure(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    # Since torch 2, `args` of a step hook starts with the optimizer itself.
    given = [a for a in args if not isinstance(a, torch.optim.Optimizer)]
    return any(a is not None for a in (*given, kwargs.get("closure")))
