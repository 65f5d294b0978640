"""The steps of a worker that takes no step with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from headrace.pytorch.used import all_used, mark_used
from headrace.role.alone import Alone

__all__ = ["AloneSteps"]


class AloneSteps(Alone):
    """What `Lockstep` is for several workers, for one worker, and before `ctx.data_parallel`.

    The optimizer's steps are as they are. Rows since the last one are counted to know whether
    a checkpoint falls into a half-accumulated step. Thread model as `Lockstep`.

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
        self._pending_rows = 0
        self._before_step = before_step
        self._hooks = []
        self._parameters: list[torch.nn.Parameter] = []
        if optimizer is not None:
            self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
            self._hooks.append(optimizer.register_step_pre_hook(self._on_step))
            self._hooks.append(optimizer.register_step_post_hook(self._on_stepped))

    @property
    def steps(self) -> int:
        """Steps of the optimizer."""
        return self._steps

    @property
    def pending_rows(self) -> int:
        """Rows that the loop has been given since its last step; they have no weight here."""
        return self._pending_rows

    def count(self, rows: int) -> None:
        """Note that the loop has been given `rows` more rows."""
        self._pending_rows += rows

    def own_part(self) -> dict[str, Any]:
        """Return the gradients of a half-accumulated step, as those of `Lockstep.own_part`."""
        gradients = [p.grad for p in self._parameters]
        if not self._pending_rows or all_used(gradients):
            return {}
        return {"pending_rows": self._pending_rows, "gradients": gradients}

    def restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:
        """Go on counting, and with a half-accumulated step; see `Alone.restore`."""
        self._steps = common["steps"]
        self._pending_rows = own.get("pending_rows", 0)
        if "gradients" in own:
            for parameter, gradient in zip(self._parameters, own["gradients"], strict=True):
                parameter.grad = None if gradient is None else gradient.clone()

    def finish(self, attend: Callable[[], object]) -> None:  # noqa: ARG002
        """No step will use what is left, in a restored job neither."""
        self._pending_rows = 0

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
        self._pending_rows = 0
        mark_used(p.grad for p in self._parameters)
