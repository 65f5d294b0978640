"""The steps of a TensorFlow process that makes no rounds with others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.role.alone import Alone

__all__ = ["AloneSteps"]


class AloneSteps(Alone):
    """What `Lockstep` is for several workers, for one worker, and before `ctx.data_parallel`.

    The optimizer counts its steps itself. Thread model as `Lockstep`.

    Args:
        optimizer: A Keras optimizer; None: there are no steps to count.
    """

    error: BaseException | None = None

    def __init__(self, optimizer: Any = None) -> None:
        self._optimizer = optimizer
        self._begin = self._iterations()
        self._given = 0
        self._counters: list[tuple[Any, int]] = []

    @property
    def steps(self) -> int:
        """Steps of the optimizer since `ctx.data_parallel`."""
        return self._iterations() - self._begin

    def restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:  # noqa: ARG002
        """Go on counting, once the optimizer was restored; see `Alone.restore`."""
        self._begin = self._iterations() - common["steps"]

    @property
    def given(self) -> int:
        """Batches of `ctx.dataset` that were given out since `watch`."""
        return self._given

    @property
    def stepped(self) -> int:
        """How many of them were stepped on, as far as it is known: no optimizer, all."""
        made = [int(counter.numpy()) - before for counter, before in self._counters]
        return min(self._given, max(made, default=self._given))

    def watch(self, objects: Sequence[Any]) -> None:
        """Compare the batches given out from now on with the steps on them.

        Args:
            objects: Among them optimizers, or models with one; the others do not count.
        """
        self._given = 0
        owned = [getattr(each, "optimizer", None) for each in objects]
        counters = map(self._counter_of, [*objects, *owned, self._optimizer])
        self._counters = [(each, int(each.numpy())) for each in counters if each is not None]

    def count_batches(self, rows: Sequence[int]) -> None:
        """Note batches of `ctx.dataset`; rows have no weight here."""
        self._given += len(rows)

    def withdraw_batches(self, count: int) -> None:
        """Expect no steps on the latest `count` batches: nobody took them."""
        self._given -= count

    def forget_batches(self) -> None:
        """No step is waited for here."""

    def _iterations(self) -> int:
        return 0 if self._optimizer is None else int(self._optimizer.iterations.numpy())

    def _counter_of(self, thing: Any) -> Any:
        """Return the variable that counts each step of a Keras optimizer, or None.

        `iterations` leaves out those that only accumulate. None where steps are left out: they
        overflow (mixed precision).
        """
        if not hasattr(thing, "iterations") or hasattr(thing, "inner_optimizer"):
            return None
        return next((each for each in thing.variables if each.name == "iteration"), None)
