"""The models of `benchmarks.scoring`, and the loop that calls one on batches in memory.

Imports nothing but torch, so that other systems' workers can import it too. As a program it
times the loop: `python -m benchmarks.scored_models mlp 4096 1000000 4000000` prints the
seconds of each number of rows, in batches of 4096.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch
from torch import nn

__all__ = ["BATCH_ROWS", "WIDTHS", "build_model", "save_model", "seconds_in_memory"]

BATCH_ROWS = {"mlp": 4096, "cnn": 1024}
"""Rows in a call, by model."""

WIDTHS = {"mlp": 16, "cnn": 784}
"""Numbers in a row, by model."""

_DIFFERENT_BATCHES = 16
_WARM_UP_BATCHES = 16


class _Image(nn.Module):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(-1, 1, 28, 28)


def build_model(name: str) -> nn.Module:
    """Return a model, the same on every call.

    Args:
        name: "mlp", (rows, 16) to (rows, 1), or "cnn", (rows, 784) to (rows, 10).
    """
    torch.manual_seed(0)
    if name == "mlp":
        return nn.Sequential(
            nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 1)
        )
    return nn.Sequential(
        _Image(),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 7 * 7, 10),
    )


def save_model(name: str, folder: Path) -> Path:
    """Save a model as TorchScript; return the file."""
    path = folder / f"{name}.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # such files are there for years
        torch.jit.save(torch.jit.script(build_model(name).eval()), path)
    return path


def seconds_in_memory(name: str, batch_rows: int, rows: int) -> float:
    """Return how long one thread takes to call the model on `rows` rows in whole batches."""
    torch.set_num_threads(1)
    model = torch.jit.script(build_model(name).eval())
    batches = [torch.rand(batch_rows, WIDTHS[name]) for _ in range(_DIFFERENT_BATCHES)]
    with torch.inference_mode():
        for batch in batches[:_WARM_UP_BATCHES]:
            model(batch)
        began = time.perf_counter()
        for index in range(rows // batch_rows):
            model(batches[index % _DIFFERENT_BATCHES])
        return time.perf_counter() - began


if __name__ == "__main__":
    for count in sys.argv[3:]:
        print(seconds_in_memory(sys.argv[1], int(sys.argv[2]), int(count)))
