"""The training that `benchmarks.fed_training` measures: an MLP on rows, and when its steps end.

Imports nothing of Flink, so that the processes that train do not either.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import nn

__all__ = [
    "BATCH_ROWS",
    "CLASSES",
    "WIDTH",
    "StepClock",
    "build_model",
    "train_fed",
    "train_step",
]

WIDTH = 784
CLASSES = 10
BATCH_ROWS = 64


def build_model() -> nn.Module:
    """Return the network, the same on every call."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(WIDTH, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, CLASSES),
    )


def train_step(model: nn.Module, optimizer: Any, x: torch.Tensor, y: torch.Tensor) -> None:
    """Make one step on a batch."""
    optimizer.zero_grad()
    loss: Any = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()


class StepClock:
    """Notes when steps end, and gives the mean length of a step.

    Args:
        warm_up_steps: Steps at the start that do not count.
    """

    def __init__(self, warm_up_steps: int) -> None:
        self._warm_up_steps = warm_up_steps
        self._ends: dict[int, list[float]] = {}  # by epoch

    def note(self, epoch: int) -> None:
        """A step of `epoch` has ended."""
        self._ends.setdefault(epoch, []).append(time.perf_counter())

    def step_us(self) -> dict[str, float]:
        """Return the mean step over all epochs and of each one, in microseconds.

        The first step of a later epoch counts with what lies between the epochs.
        """
        ends = [end for epoch in self._ends.values() for end in epoch][self._warm_up_steps :]
        means = {"all": _mean_us(ends)}
        for epoch, of_epoch in self._ends.items():
            counted = of_epoch[self._warm_up_steps :] if epoch == 0 else of_epoch
            means[f"epoch_{epoch}"] = _mean_us(counted)
        return means


def _mean_us(ends: list[float]) -> float:
    return (ends[-1] - ends[0]) / (len(ends) - 1) * 1e6


def train_fed(ctx: Any, *, warm_up_steps: int) -> None:
    """Train on the rows that come from Flink; report the mean steps."""
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ctx.data_parallel(model, optimizer)
    clock = StepClock(warm_up_steps)
    for batch in ctx.batches(rows=BATCH_ROWS):
        train_step(model, optimizer, batch["x"], batch["y"])
        clock.note(ctx.epoch)
    ctx.report(**clock.step_us())
