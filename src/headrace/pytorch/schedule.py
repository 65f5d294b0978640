"""A learning-rate schedule that advances with every common step, whoever makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

__all__ = ["Schedule", "Scheduler"]


class Scheduler(Protocol):
    """The one method that a learning-rate scheduler needs here."""

    def step(self) -> None:
        """Advance by one optimizer step."""


class Schedule:
    """Advances behind shadow steps; the loop does it behind its own.

    Inside the loop's last step the others' steps come before the loop can advance it. Then it
    *owes* that step: it is made before the next shadow step or capture, and when the loop asks
    for it at last, it is left out.

    Thread model: that of the entry function.

    Args:
        scheduler: The loop's; None: there is none, and nothing to do.
    """

    def __init__(self, scheduler: Scheduler | None) -> None:
        self._scheduler = scheduler
        self._owes = False
        self._is_ahead = False
        self._give_back: Callable[[], object] | None = None

    @property
    def is_there(self) -> bool:
        """Whether there is a scheduler."""
        return self._scheduler is not None

    def step(self) -> None:
        """Advance behind a shadow step."""
        if self._scheduler is not None:
            self._scheduler.step()

    def owe(self) -> None:
        """Note that the loop has made its last step, and not advanced the scheduler yet."""
        self._owes = True

    def settle(self) -> None:
        """Advance for the loop, which will be too late."""
        if self._owes:
            self._owes = False
            self._is_ahead = True
            self.step()

    def go_back_to_the_loop(self) -> None:
        """Leave out the loop's next call, if what it asks for was done."""
        self._owes = False
        if self._is_ahead and self._scheduler is not None:
            self._is_ahead = False
            self._give_back = _leave_out_next_step(self._scheduler)

    def close(self) -> None:
        """Give the scheduler back as it was. Idempotent."""
        if self._give_back is not None:
            self._give_back()
            self._give_back = None


def _leave_out_next_step(scheduler: Any) -> Callable[[], object]:
    """Make the next `step` do nothing; return what makes it do something again.

    By another class: what is in the object is its state.
    """
    kind = type(scheduler)

    def give_back() -> None:
        scheduler.__class__ = kind

    def step(*_: object, **__: object) -> None:
        give_back()

    scheduler.__class__ = type(kind.__name__, (kind,), {"__slots__": (), "step": step})
    return give_back
