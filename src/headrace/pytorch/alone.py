"""The steps of a worker that takes no step with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from headrace.role.alone import Alone

__all__ = ["AloneSteps"]


class AloneSteps(Alone):
    """What `Lockstep` is for several workers, for one worker, and before `ctx.data_parallel`.

    The optimizer's steps are as they are. Thread model as `Lockstep`.

    Args:
        optimizer: Its steps are counted until `close`; None: there are none to count.
        before_step: Called before each step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        before_step: Callable[[], object] | None = None,
    ) -> None:
        self._steps = 0
        self._before_step = before_step
        self._hooks = []
        if optimizer is not None:
            self._hooks.append(optimizer.register_step_pre_hook(self._on_step))
            self._hooks.append(optimizer.register_step_post_hook(self._on_stepped))

    @property
    def steps(self) -> int:
        """Steps of the optimizer."""
        return self._steps

    def restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:  # noqa: ARG002
        """Go on counting; see `Alone.restore`."""
        self._steps = common["steps"]

    def give_rows(self, rows: int) -> None:
        """Rows have no weight here."""

    def reduce_now(self) -> None:
        """The gradient is that of all rows already."""

    def close(self) -> None:
        """Unhook the optimizer. Idempotent."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def _on_step(self, *_: Any) -> None:
        if self._before_step is not None:
            self._before_step()

    def _on_stepped(self, *_: Any) -> None:
        self._steps += 1
