"""Notices a worker that steps an optimizer without `ctx.data_parallel`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

from headrace.role import require_not_restored

__all__ = ["LoneStep"]

_LOG = logging.getLogger(__name__)
_LONE = (
    "An optimizer steps, but ctx.data_parallel was not called: each of the %d workers trains "
    "a model of its own on the rows that Flink gives it, and ctx.save writes that of rank 0. "
    "Call ctx.data_parallel(model, optimizer) before the loop. If gradients are summed in "
    "another way (DistributedDataParallel), every worker must make the same number of steps."
)


class LoneStep:
    """Looks at the first ``step()`` of any optimizer of this process once the input is read.

    With several workers it warns: it may be meant. In a restored job it raises `PlanError` out
    of that ``step()`` and all behind it. A model may be trained on other data before.

    Thread model: the thread that steps.

    Args:
        is_reading: Returns whether the input is being read.
    """

    def __init__(self, is_reading: Callable[[], bool]) -> None:
        self._is_reading = is_reading
        self._workers = 1
        self._is_restored = False
        self._handle: Any = None
        self._has_looked = False

    def open(self, *, workers: int, is_restored: bool) -> None:
        """Begin to look."""
        self._workers = workers
        self._is_restored = is_restored
        self._handle = register_optimizer_step_pre_hook(self._on_step)

    def allow_restored(self) -> None:
        """Take a step in a restored job for a good one: its model was restored with it."""
        self._is_restored = False

    def close(self) -> None:
        """Look no more. Idempotent."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _on_step(self, *_: Any) -> None:
        if self._has_looked or not self._is_reading():
            return
        require_not_restored(is_restored=self._is_restored)
        self._has_looked = True  # the hook stays: torch walks the hooks while this one runs
        if self._workers > 1:
            _LOG.warning(_LONE, self._workers)
