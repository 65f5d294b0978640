"""The workers of `benchmarks.recovery`, `rescale` and `goodput`: they tell when they step.

They import what a training function needs, and keep model and optimizer in Flink's checkpoints.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "MARK",
    "train_and_log",
    "train_in_common",
    "train_in_pytorch",
    "train_in_tensorflow",
]

MARK = "step-"
"""A mark's name is this and the pid; it holds the time on the monotonic clock, in seconds."""


def train_in_pytorch(ctx: Any, *, marks: Path) -> None:
    """Train a small model on the rows; leave a mark at the first step."""
    is_first = True
    for _ in _steps_in_pytorch(ctx):
        if is_first:
            _leave_mark(marks / f"{MARK}{os.getpid()}", f"{time.monotonic()!r}")
            is_first = False


def train_in_common(ctx: Any, *, marks: Path) -> None:
    """Train with others; leave a mark `<attempt>-<workers>-<rank>` at the first step.

    It holds the time on the monotonic clock and the pid. A step of rows of this worker's own:
    those that it makes for the sake of the others do not count.
    """
    is_first = True
    for _ in _steps_in_pytorch(ctx):
        if is_first:
            mark = marks / f"{ctx.attempt}-{ctx.world_size}-{ctx.rank}"
            _leave_mark(mark, f"{time.monotonic()!r} {os.getpid()}")
            is_first = False


def train_and_log(ctx: Any, *, steps: Path) -> None:
    """Train; write a line for each step into a file of this process, named by its pid.

    A line is the time on the monotonic clock and the step's number, which goes on from what
    the checkpoint has.
    """
    with (steps / str(os.getpid())).open("a", buffering=1) as log:
        for _ in _steps_in_pytorch(ctx):
            ctx.state["steps"] = ctx.state.get("steps", 0) + 1
            log.write(f"{time.monotonic():.6f} {ctx.state['steps']}\n")


def _steps_in_pytorch(ctx: Any) -> Iterator[None]:
    """Train a small model on the rows, 16 for a step; yield behind each step."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters())
    ctx.checkpointed(model=model, optimizer=optimizer)
    ctx.data_parallel(model, optimizer)
    for batch in ctx.batches(rows=16):
        x = torch.from_numpy(_features(batch["id"]))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        yield


def train_in_tensorflow(ctx: Any, *, marks: Path) -> None:
    """Train a small model on the rows; leave a mark at the first step."""
    import keras
    import tensorflow as tf

    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)]
    )
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    ctx.checkpointed(model=model, optimizer=optimizer)
    is_first = True
    for batch in ctx.batches(rows=16):
        x = tf.constant(_features(batch["id"]))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(model(x)))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        if is_first:
            _leave_mark(marks / f"{MARK}{os.getpid()}", f"{time.monotonic()!r}")
            is_first = False


def _features(ids: Any) -> Any:
    numbers = np.asarray(ids)
    return np.stack([numbers % 7 / 7, numbers % 11 / 11], axis=1).astype(np.float32)


def _leave_mark(mark: Path, text: str) -> None:
    draft = mark.with_name(f".{mark.name}")
    draft.write_text(text)
    draft.replace(mark)
