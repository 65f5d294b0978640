"""What an epoch brought, for all epochs of a training."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["VALIDATION", "History"]

VALIDATION = "val_"
"""What the names of values on the held-out table begin with, as in Keras."""


class History(Mapping[str, tuple[float, ...]]):
    """Name of a value to its value in each epoch; immutable.

    "loss" and the metrics are those of the rows of all workers, means over them unless a metric
    of Keras is something else: in training as the steps of the epoch saw them, on the held-out
    table ("val_loss" and so on) after the epoch.
    "learning_rate" is that of the epoch's first step, "rows" and "val_rows" count the rows.

    Args:
        epochs: The values of each epoch, by name.
        best_epoch: From 0: the epoch whose model was the best by `EarlyStopping`; None without.
    """

    def __init__(
        self, epochs: Sequence[Mapping[str, float]] = (), *, best_epoch: int | None = None
    ) -> None:
        self._epochs = tuple(dict(each) for each in epochs)
        self.best_epoch = best_epoch

    @property
    def epochs(self) -> int:
        """How many epochs were trained."""
        return len(self._epochs)

    def __getitem__(self, name: str) -> tuple[float, ...]:
        """Return the value of each epoch.

        Raises:
            KeyError: There is no such value.
        """
        if name not in self._names():
            raise KeyError(name)
        return tuple(each[name] for each in self._epochs)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def __repr__(self) -> str:
        values = ", ".join(f"{name}={self[name]}" for name in self)
        return f"History({values}, best_epoch={self.best_epoch})"

    def to_json(self) -> str:
        """Return it as text."""
        return json.dumps(self.to_dict(), indent=1)

    def to_dict(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return {"epochs": self._epochs, "best_epoch": self.best_epoch}

    @classmethod
    def from_json(cls, text: str) -> History:
        """Return what `to_json` has written.

        Raises:
            ValueError, KeyError: It is something else.
        """
        found: dict[str, Any] = json.loads(text)
        return cls(found["epochs"], best_epoch=found["best_epoch"])

    def _names(self) -> dict[str, float]:
        return self._epochs[0] if self._epochs else {}
