"""Notices that a process steps an optimizer, whichever it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim.optimizer import register_optimizer_step_pre_hook

__all__ = ["FirstStep"]


class FirstStep:
    """Calls back before the first ``step()`` of any optimizer of this process, once.

    Thread model: the thread that steps. What the callback raises comes out of ``step()``.
    """

    def __init__(self, on_step: Callable[[], None]) -> None:
        self._on_step = on_step
        self._handle: Any = None

    def open(self) -> None:
        """Begin to look."""
        self._handle = register_optimizer_step_pre_hook(self._notice)

    def close(self) -> None:
        """Look no more. Idempotent."""
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def _notice(self, *_: Any) -> None:
        self.close()
        self._on_step()
