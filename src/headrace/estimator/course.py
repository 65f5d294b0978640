"""The course of a training: what each epoch brought, and whether another one follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.errors import DataError
from headrace.estimator.early_stopping import EarlyStopping
from headrace.estimator.history import VALIDATION, History

__all__ = ["Course", "Verdict", "require_finite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What follows from an epoch.

    Attributes:
        is_best: Whether its model is to be kept in place of an earlier one.
        is_last: Whether no epoch may follow, however many were planned.
    """

    is_best: bool
    is_last: bool


def require_finite(name: str, value: float, epoch: int, place: str = "") -> None:
    """Refuse a loss that is infinite or NaN.

    Args:
        name: Of the loss.
        value: What it is.
        epoch: From 0.
        place: What else is known of where.

    Raises:
        DataError: It is.
    """
    if not math.isfinite(value):
        msg = (
            f"The {name} is {value} in epoch {epoch} (from 0){place}: nothing can be learned "
            "from it, and nothing is saved. Lower the learning rate, or look for values in the "
            "columns that are too large, infinite or NaN"
        )
        raise DataError(msg)


class Course:
    """Notes the epochs and decides by them; the same on all workers. Pure.

    Args:
        early_stopping: By what; None: every planned epoch is trained.
        has_held_out: Whether there is a held-out table.
    """

    def __init__(self, early_stopping: EarlyStopping | None, *, has_held_out: bool) -> None:
        self._early_stopping = early_stopping
        self._has_held_out = has_held_out
        self._epochs: list[Mapping[str, float]] = []
        self._best: float | None = None
        self._best_epoch: int | None = None

    @property
    def history(self) -> History:
        """The epochs so far."""
        return History(self._epochs, best_epoch=self._best_epoch)

    @property
    def latest(self) -> Mapping[str, float]:
        """The values of the epoch that ended last."""
        return self._epochs[-1]

    def state_dict(self) -> dict[str, Any]:
        """Return the epochs so far, and the best, for `load_state_dict`."""
        return {
            "epochs": [dict(each) for each in self._epochs],
            "best": self._best,
            "best_epoch": self._best_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on behind the epochs of another course."""
        self._epochs = [dict(each) for each in state["epochs"]]
        self._best, self._best_epoch = state["best"], state["best_epoch"]

    def end_epoch(self, values: Mapping[str, float]) -> Verdict:
        """Note an epoch.

        Args:
            values: As in `History`.

        Raises:
            DataError: There were no rows to train on, or none that were held out; or the loss
                on them is no number.
        """
        if not values.get("rows"):
            msg = (
                "The table had no rows: nothing was trained, and nothing is saved. Look at its "
                "query, for example with table.limit(5).execute().print()"
            )
            raise DataError(msg)
        if self._has_held_out and not values.get(f"{VALIDATION}rows"):
            msg = (
                "The validation table had no rows, so nothing can be said about the model; "
                "nothing is saved. Look at its query, or leave it out"
            )
            raise DataError(msg)
        for name in ("loss", f"{VALIDATION}loss"):
            require_finite(name, values.get(name, 0.0), len(self._epochs))
        self._epochs.append(dict(values))
        stopping, epoch = self._early_stopping, len(self._epochs) - 1
        if stopping is None:
            return Verdict(is_best=False, is_last=False)
        value = values[f"{VALIDATION}{stopping.monitor}"]
        is_best = stopping.is_better(value, self._best)
        if is_best:
            self._best, self._best_epoch = value, epoch
        since = -1 if self._best_epoch is None else self._best_epoch
        is_last = epoch - since >= stopping.patience
        return Verdict(is_best=is_best and stopping.restore_best, is_last=is_last)
