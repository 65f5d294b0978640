"""Entry functions of `benchmarks.lifecycle`: they import what a training function needs."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

__all__ = ["block_for_ever", "train_on_files", "train_on_rows"]

_WIDTH = 16


def train_on_rows(ctx: Any, *, marks: Path) -> None:
    """Train on the rows; leave a mark at the first step."""
    step = _open_step(ctx)
    for batch in ctx.batches(rows=64):
        step(batch["x"])
        if ctx.steps == 1:
            _leave_mark(marks, ctx)


def block_for_ever(ctx: Any, *, marks: Path) -> None:
    """Take one batch, leave a mark, and read no more."""
    next(ctx.batches(rows=64))
    _leave_mark(marks, ctx)
    threading.Event().wait()


def train_on_files(ctx: Any, *, marks: Path) -> None:
    """Train on rows of its own until a file `stop` appears; leave a mark at the first step."""
    step = _open_step(ctx)
    x = torch.randn(64, _WIDTH)
    while not (marks / "stop").exists():
        step(x)
        if ctx.steps == 1:
            _leave_mark(marks, ctx)


def _open_step(ctx: Any) -> Any:
    model = nn.Linear(_WIDTH, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    ctx.data_parallel(model, optimizer)

    def step(x: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss: Any = model(x).square().mean()
        loss.backward()
        optimizer.step()

    return step


def _leave_mark(marks: Path, ctx: Any) -> None:
    """Write the instant and the process into a file of the attempt and worker, at once."""
    name = f"{ctx.attempt}-{ctx.rank}"
    half_done = marks / f"{name}.part"
    half_done.write_text(f"{time.monotonic()} {os.getpid()}")
    half_done.rename(marks / name)
