"""The worker of `benchmarks.checkpoint_pause`: it times what a checkpoint keeps it waiting."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

__all__ = ["train_in_pytorch", "train_in_tensorflow"]

_INPUTS = 1_000
_UNITS_PER_MB = 250


def train_in_pytorch(ctx: Any, *, state_mb: int, warm_up: int, checkpoints: int) -> None:
    """Keep a linear model of PyTorch's; see `_time`."""
    import torch

    torch.set_num_threads(1)
    model = torch.nn.Linear(_INPUTS, state_mb * _UNITS_PER_MB, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    ctx.checkpointed(model=model, optimizer=optimizer)
    x = torch.ones(4, _INPUTS)

    def step() -> None:
        with torch.no_grad():
            model(x)

    _time(ctx, step, state_mb=state_mb, warm_up=warm_up, checkpoints=checkpoints)


def train_in_tensorflow(ctx: Any, *, state_mb: int, warm_up: int, checkpoints: int) -> None:
    """Keep a linear model of TensorFlow's; see `_time`."""
    import keras
    import tensorflow as tf

    layer = keras.layers.Dense(
        state_mb * _UNITS_PER_MB, use_bias=False, kernel_initializer="zeros"
    )
    model = keras.Sequential([keras.Input((_INPUTS,)), layer])
    optimizer = keras.optimizers.SGD(0.0)
    optimizer.build(model.trainable_variables)
    ctx.checkpointed(model=model, optimizer=optimizer)
    x = tf.ones((4, _INPUTS))

    def step() -> None:
        model(x)

    _time(ctx, step, state_mb=state_mb, warm_up=warm_up, checkpoints=checkpoints)


def _time(
    ctx: Any, step: Callable[[], object], *, state_mb: int, warm_up: int, checkpoints: int
) -> None:
    """Step on the rows; report what the checkpoints and copies of as many bytes take.

    A pause is the time from the end of a step to the begin of the next one, where a barrier
    lies between them, over what it is elsewhere. It needs more rows than the steps can take.

    Args:
        ctx: The context of a role, which keeps a state.
        step: Uses the whole state once.
        state_mb: Its size.
        warm_up: How many checkpoints, 2 at least, are apart: their memory may be new.
        checkpoints: After how many more the job is ended.
    """
    source = np.ones(state_mb * 1_000_000, np.uint8)
    target = np.ones_like(source)
    usual_ms: deque[float] = deque(maxlen=1_000)
    gaps_ms: list[float] = []
    copies_ms: list[float] = []
    has_captured = False
    capture = ctx._capture  # noqa: SLF001 - the loop does not see where a barrier is

    def noted(checkpoint_id: int | None) -> Any:
        nonlocal has_captured
        has_captured |= checkpoint_id is not None
        return capture(checkpoint_id)

    ctx._barriers._capture = noted  # noqa: SLF001
    ended: float | None = None
    for _ in ctx.batches(rows=4):
        gap_ms = None if ended is None else (time.perf_counter() - ended) * 1e3
        if gap_ms is not None and has_captured:
            gaps_ms.append(gap_ms)
            began = time.perf_counter()
            np.copyto(target, source)
            copies_ms.append((time.perf_counter() - began) * 1e3)
        elif gap_ms is not None:
            usual_ms.append(gap_ms)
        step()
        if has_captured and len(gaps_ms) > warm_up and usual_ms:
            usual = median(usual_ms)
            pauses_ms = [each - usual for each in gaps_ms]
            later = pauses_ms[warm_up:]
            ctx.report(
                checkpoints=len(later),
                first_ms=pauses_ms[0],
                second_ms=pauses_ms[1],
                usual_gap_ms=usual,
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
        has_captured = False
        ended = time.perf_counter()
