"""How far a fit has come, as Flink's checkpoints keep it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from headrace.estimator.course import Course, Verdict

__all__ = ["FitState"]


class FitState:
    """The course of a fit, with the `state_dict` that `ctx.checkpointed` asks for.

    What the end of an epoch brings counts from the beginning of the next one. So every
    checkpoint between the last row of one and the first of the other holds the same, and who
    is restored from it ends that epoch once more: otherwise one worker might go on before that
    end and another one behind it, since the last states of several are not of one moment. A fit
    that stops early counts at once: that is a common step of all.

    Thread model: one thread at a time.

    Args:
        course: What the epochs have brought.
        epochs: Passes that are planned.
        trained: Returns what the rows of the present epoch have brought so far; pickles.
        restore_trained: Takes what `trained` returned at the restored checkpoint.
        copy_model: Returns the weights as they are, to be kept as the best; None: this worker
            does not save.

    Attributes:
        best: Weights of the best epoch, in the worker that saves; None: there are none.
        rate: Learning rate of the present epoch's first step.
        is_over: Whether no epoch may follow, though more were planned.
    """

    def __init__(
        self,
        course: Course,
        *,
        epochs: int,
        trained: Callable[[], Any],
        restore_trained: Callable[[Any], object],
        copy_model: Callable[[], Any] | None,
    ) -> None:
        self._course = course
        self._epochs = epochs
        self._trained = trained
        self._restore_trained = restore_trained
        self._copy_model = copy_model
        self._epoch = -1
        self._counted: tuple[Mapping[str, Any], Any] = (course.state_dict(), None)
        self.best: Any = None
        self.rate = float("nan")
        self.is_over = False

    def is_new(self, epoch: int) -> bool:
        """Whether the epoch has not begun; behind a restored checkpoint it may have."""
        return epoch != self._epoch

    def begin_epoch(self, epoch: int, rate: float) -> None:
        """Begin a new epoch, before its first row is asked for."""
        self._epoch, self.rate = epoch, rate
        self._count()

    def end_epoch(self, values: Mapping[str, float]) -> Verdict:
        """Note what the epoch brought; the same on all workers. See `Course.end_epoch`."""
        verdict = self._course.end_epoch(values)
        if verdict.is_best and self._copy_model is not None:
            self.best = self._copy_model()
        if verdict.is_last and self._epoch + 1 < self._epochs:
            self.is_over = True
            self._count()
        return verdict

    def state_dict(self) -> dict[str, Any]:
        """Return it; refers to the weights of the best epoch."""
        course, best = self._counted
        return {
            "epoch": self._epoch,
            "rate": self.rate,
            "is_over": self.is_over,
            "course": course,
            "best": best,
            "trained": self._trained(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another process was."""
        self._epoch, self.rate = state["epoch"], state["rate"]
        self.is_over = state["is_over"]
        self.best = copy.deepcopy(state["best"])  # lest it keep all that was restored in memory
        self._course.load_state_dict(state["course"])
        self._restore_trained(state["trained"])
        self._count()

    def _count(self) -> None:
        self._counted = (self._course.state_dict(), self.best)
