"""Common optimizer steps of several PyTorch workers: what a round carries, and when.

An active round is made by ``optimizer.step()``, in a hook before it; a shadow step calls the
same ``step()``. `headrace.role.rounds` says who waits for whom.

Gradients that the loop changes after the reduction (clipping) must reach the shadows as well.
With `before_step` each worker makes the change itself; after an explicit `reduce_now` the
active workers' changed gradient is shared in a second round, only where there is a shadow.

Thread model: everything is called on the thread of the entry function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar

import torch

from headrace.errors import UsageError
from headrace.pytorch.flat import FlatGradients
from headrace.pytorch.rates import rates_of, require_same_rates, take_rates
from headrace.pytorch.schedule import Schedule, Scheduler
from headrace.pytorch.used import all_used, mark_used
from headrace.role.rounds import Reduction, Rounds, Tallies

__all__ = ["Adder", "Lockstep"]

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


class Lockstep(Rounds):
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
        super().__init__(
            world_size=adder.world_size,
            reduction=reduction,
            idle_after_s=idle_after_s,
            rates=vector.groups,
        )
        self._vector = vector
        self._optimizer = optimizer
        self._schedule = Schedule(scheduler)
        self._adder = adder
        self._before_step = before_step
        self._given_rows: int | None = None
        self._explicit: Tallies | None = None
        self._is_shadow_step = False
        self._attend_last: Callable[[], object] | None = None
        self._kept: list[torch.Tensor | None] | None = None
        self._hooks = [
            optimizer.register_step_pre_hook(self._on_step),
            optimizer.register_step_post_hook(self._on_stepped),
        ]

    def give_rows(self, rows: int) -> None:
        """Set the rows behind the next step, whatever was counted."""
        self._given_rows = rows

    def close(self) -> None:
        """Give optimizer and scheduler back as they were. Idempotent."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self._schedule.close()

    def wait(self, poll: Callable[[float], _T | None]) -> _T:
        """Wait for own input while taking part in the others' steps.

        Args:
            poll: Called with a time-out in seconds; returns None if nothing came within it.

        Returns:
            What `poll` returned.
        """
        self._require_no_open_step()
        return super().wait(poll)

    def finish_after_step(self, attend: Callable[[], object]) -> None:
        """Finish right after the loop's next step, which uses the last rows."""
        self._attend_last = attend

    def common_part(self) -> dict[str, Any]:
        """Return what all workers hold alike beside the model; see `Rounds.common_part`."""
        return {**super().common_part(), "counts": self._vector.counts}

    def own_part(self) -> dict[str, Any]:
        """Return what is this worker's own; see `Rounds.own_part`.

        With rows since the last step, `gradients` are those of the half-accumulated step, which
        lie aside while a barrier is answered: one tensor or None for each parameter. There are
        none if the loop has skipped those rows.
        """
        own = super().own_part()
        if self._kept is None or not self._pending_rows or all_used(self._kept):
            return own
        return {**own, "gradients": self._kept}

    def restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:
        """Take up what was captured, behind the model's own state; see `Rounds.restore`."""
        super().restore(common, own)
        if "counts" in common:  # not from one worker alone; the model's buffers tell them too
            self._vector.counts = common["counts"]
        if "gradients" in own:
            gradients = own["gradients"]  # copied: they lie in the memory of the whole state
            self._vector.put_gradients([g if g is None else g.clone() for g in gradients])

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
        if totals.explicit and totals.active < self._world_size:
            self._share_changed_gradient(is_active=True)
        if self._before_step is not None:
            self._before_step()

    def _on_stepped(
        self, _optimizer: torch.optim.Optimizer, _args: tuple[Any, ...], _kwargs: dict[str, Any]
    ) -> None:
        if self._is_shadow_step:
            return
        mark_used(parameter.grad for parameter in self._vector.parameters)
        if self._attend_last is None:
            return
        attend, self._attend_last = self._attend_last, None
        # The loop would advance the scheduler only after the shadow steps that come now.
        self._schedule.owe()
        self.finish(attend)
        self._schedule.go_back_to_the_loop()

    def _make_active_round(self, *, explicit: bool) -> Tallies:
        if self._is_over:
            raise UsageError(_OVER)
        rows = self._take_rows(self._given_rows)
        self._given_rows = None
        rates = rates_of(self._optimizer, self._vector.groups)
        mine = Tallies(rows=rows, active=1, explicit=int(explicit), rates=rates)
        self._vote(mine)
        self._vector.load(mine, weight=self._weight_of(rows))
        totals = self._add()
        require_same_rates(rates, totals)
        self._store(totals)
        self.steps += 1
        return totals

    def _add_numbers(self, numbers: list[float]) -> list[float]:
        ballot = torch.tensor(numbers, device=self._vector.vector.device)
        self._adder.add(ballot)
        found: list[float] = ballot.tolist()
        return found

    def _add_nothing(self, mine: Tallies) -> Tallies:
        self._vector.clear(mine)
        return self._add()

    def _step_as_shadow(self, totals: Tallies) -> None:
        self._store(totals)
        if totals.explicit:
            self._share_changed_gradient(is_active=False)
        if not self._schedule.is_there:
            take_rates(self._optimizer, totals)
        self._schedule.settle()
        if self._before_step is not None:
            self._before_step()
        self._is_shadow_step = True
        try:
            self._optimizer.step()
        finally:
            self._is_shadow_step = False
        self._schedule.step()

    def _before_answer(self) -> None:
        self._schedule.settle()

    def _share_changed_gradient(self, *, is_active: bool) -> None:
        if is_active:
            self._vector.load(Tallies(rows=1.0, active=1), weight=1.0)
        else:
            self._vector.clear(Tallies())
        totals = self._add()
        self._vector.store(gradients_over=totals.active, totals=totals)

    def _require_no_open_step(self) -> None:
        """A shadow round here would be taken for the end of the open step by the others."""
        if self._explicit is not None:
            raise UsageError(_NO_STEP)

    def _add(self) -> Tallies:
        self._adder.add(self._vector.vector)
        return self._vector.tallies()

    def _store(self, totals: Tallies) -> None:
        self._vector.store(gradients_over=self._divisor_of(totals), totals=totals)

    @contextmanager
    def _before_shadows(self) -> Iterator[None]:
        self._require_no_open_step()
        # Gradients of a half-accumulated own step must survive the steps of the others.
        self._kept = kept = self._vector.take_gradients()
        try:
            yield
        finally:
            self._vector.put_gradients(kept)
            self._kept = None


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
