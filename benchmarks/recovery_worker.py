"""The workers of `benchmarks.recovery`: each leaves a mark at its first step.

They import what a training function needs, and keep model and optimizer in Flink's checkpoints.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["MARK", "train_in_pytorch", "train_in_tensorflow"]

MARK = "step-"
"""A mark's name is this and the pid; it holds the time on the monotonic clock, in seconds."""


def train_in_pytorch(ctx: Any, *, marks: Path) -> None:
    """Train a small model on the rows."""
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.Adam(model.parameters())
    ctx.checkpointed(model=model, optimizer=optimizer)
    is_first = True
    for batch in ctx.batches(rows=16):
        x = torch.from_numpy(_features(batch["id"]))
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        if is_first:
            _leave_mark(marks)
            is_first = False


def train_in_tensorflow(ctx: Any, *, marks: Path) -> None:
    """Train a small model on the rows."""
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
            _leave_mark(marks)
            is_first = False


def _features(ids: Any) -> Any:
    numbers = np.asarray(ids)
    return np.stack([numbers % 7 / 7, numbers % 11 / 11], axis=1).astype(np.float32)


def _leave_mark(marks: Path) -> None:
    draft = marks / f".{os.getpid()}"
    draft.write_text(repr(time.monotonic()))
    draft.replace(marks / f"{MARK}{os.getpid()}")
