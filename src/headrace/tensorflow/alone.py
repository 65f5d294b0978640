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

    @property
    def steps(self) -> int:
        """Steps of the optimizer since `ctx.data_parallel`."""
        return self._iterations() - self._begin

    def restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:  # noqa: ARG002
        """Go on counting, once the optimizer was restored; see `Alone.restore`."""
        self._begin = self._iterations() - common["steps"]

    def count_batches(self, rows: Sequence[int]) -> None:
        """Rows have no weight here."""

    def withdraw_batches(self, count: int) -> None:
        """Rows have no weight here."""

    def forget_batches(self) -> None:
        """No step is waited for here."""

    def _iterations(self) -> int:
        return 0 if self._optimizer is None else int(self._optimizer.iterations.numpy())
