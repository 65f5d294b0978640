"""The worker of `benchmarks.checkpoint_pause`: it times what a checkpoint keeps it waiting."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
import torch

__all__ = ["train_and_time"]


def train_and_time(ctx: Any, *, state_mb: int, warm_up: int, checkpoints: int) -> None:
    """Keep a model of `state_mb` MB in the checkpoints; report what they and copies take.

    Args:
        ctx: The context of a role.
        state_mb: Size of the model's parameters.
        warm_up: How many checkpoints to leave out; the first two files are new then.
        checkpoints: After how many more the job is ended.
    """
    model = torch.nn.Linear(1_000, state_mb * 250, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    ctx.checkpointed(model=model, optimizer=optimizer)
    source = np.ones(state_mb * 1_000_000, np.uint8)
    target = np.ones_like(source)
    pauses_ms: list[float] = []
    copies_ms: list[float] = []
    capture = ctx._capture  # noqa: SLF001 - what a barrier keeps the loop waiting for

    def timed(checkpoint_id: int | None) -> Any:
        began = time.perf_counter()
        state = capture(checkpoint_id)
        taken_ms = (time.perf_counter() - began) * 1e3
        if checkpoint_id is not None:
            pauses_ms.append(taken_ms)
            began = time.perf_counter()
            np.copyto(target, source)
            copies_ms.append((time.perf_counter() - began) * 1e3)
        return state

    ctx._barriers._capture = timed  # noqa: SLF001
    for _ in ctx.batches(rows=4):
        later = pauses_ms[warm_up:]
        if later:
            ctx.report(
                checkpoints=len(later),
                first_ms=pauses_ms[0],
                pause_ms=median(later),
                pause_min_ms=min(later),
                pause_max_ms=max(later),
                copy_ms=median(copies_ms[warm_up:]),
                copy_min_ms=min(copies_ms[warm_up:]),
                copy_max_ms=max(copies_ms[warm_up:]),
            )
        if len(later) >= checkpoints:
            ctx.stop_job("measured")
            break
