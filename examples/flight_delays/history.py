"""What one worker notes of its steps, for the figures and the curve that the program shows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

__all__ = ["HISTORY_FILE", "History", "draw", "read_history", "write_history"]

HISTORY_FILE = "history.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """Losses of one worker's steps: Huber, in hours.

    Attributes:
        losses: Of the model.
        guesses: Of guessing the mean of the step's flights: in summer, when delays vary more,
            both are higher.
        epochs: Passes over the rows, of equally many steps.
    """

    losses: list[float]
    guesses: list[float]
    epochs: int

    def by_epoch(self, values: list[float]) -> list[float]:
        """Return the mean of each epoch's values."""
        steps = len(values) // self.epochs
        parts = [values[epoch * steps : (epoch + 1) * steps] for epoch in range(self.epochs)]
        return [round(sum(part) / max(1, len(part)), 4) for part in parts]


def write_history(file: Path, losses: list[float], guesses: list[float]) -> None:
    """Write the losses of each step."""
    file.write_text(json.dumps({"losses": losses, "guesses": guesses}))


def read_history(file: Path, *, epochs: int) -> History:
    """Read what `write_history` has written."""
    return History(**json.loads(file.read_text()), epochs=epochs)


def draw(history: History, path: Path) -> None:
    """Draw the curves into a PNG file."""
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(_smooth(history.guesses), label="guessing the mean of the step's flights")
    axes.plot(_smooth(history.losses), label="the model")
    for epoch in range(1, history.epochs):
        axes.axvline(epoch * len(history.losses) / history.epochs, color="lightgray", zorder=0)
    axes.set(xlabel="step of worker-0", ylabel="loss (Huber, hours), mean of 20 steps")
    axes.set(title="Flight delays: loss while training, epoch by epoch")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _smooth(values: list[float], width: int = 20) -> list[float]:
    first = [max(0, end - width) for end in range(1, len(values) + 1)]
    return [sum(values[i : end + 1]) / (end + 1 - i) for end, i in enumerate(first)]
