"""The steps of a worker that takes no step with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from headrace.role import wait_patiently

__all__ = ["AloneSteps"]

_T = TypeVar("_T")


class AloneSteps:
    """What `Lockstep` is for several workers, for one worker, and before `ctx.data_parallel`.

    Nobody to wait for, and no arithmetic: the optimizer's steps are as they are. Thread
    model as `Lockstep`.

    Args:
        optimizer: Its steps are counted until `close`; None: there are none to count.
        before_step: Called before each step.
    """

    pending_rows = 0

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        before_step: Callable[[], object] | None = None,
    ) -> None:
        self.steps = 0
        self._before_step = before_step
        self._hooks = []
        if optimizer is not None:
            self._hooks.append(optimizer.register_step_pre_hook(self._on_step))
            self._hooks.append(optimizer.register_step_post_hook(self._on_stepped))

    def count(self, rows: int) -> None:
        """Rows have no weight here."""

    def give_rows(self, rows: int) -> None:
        """Rows have no weight here."""

    def reduce_now(self) -> None:
        """The gradient is that of all rows already."""

    def end_pass(self, attend: Callable[[], object]) -> None:
        """Nobody else has a pass to end."""

    def finish(self, attend: Callable[[], object]) -> None:
        """Nobody else has steps to make."""

    def finish_after_step(self, attend: Callable[[], object]) -> None:
        """Nobody else has steps to make."""

    def wait(self, poll: Callable[[float], _T | None]) -> _T:
        """Call `poll` with a time-out in seconds until it returns something."""
        return wait_patiently(poll)

    def close(self) -> None:
        """Unhook the optimizer. Idempotent."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _on_step(self, *_: Any) -> None:
        if self._before_step is not None:
            self._before_step()

    def _on_stepped(self, *_: Any) -> None:
        self.steps += 1
