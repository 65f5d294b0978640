"""The workers of `benchmarks.checkpoint_throughput`: each notes when its steps end.

The network is 784-2048-2048-1220-10: with the two moments of Adam it has 100 MB.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = [
    "BATCH_ROWS",
    "WIDTH",
    "torch_model",
    "torch_step",
    "train_in_pytorch",
    "train_in_tensorflow",
]

BATCH_ROWS = 64
WIDTH = 784
_HIDDEN = (2048, 2048, 1220)
_CLASSES = 10
_SPREAD = 0.618034  # the rows count up: this many of them make features between 0 and 1


def train_in_pytorch(ctx: Any, *, steps: Path) -> None:
    """Train on the rows; write a line for each step, with the monotonic clock's seconds."""
    import torch

    model = torch_model(_HIDDEN)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    ctx.checkpointed(model=model, optimizer=optimizer)
    with steps.open("a", buffering=1) as log:
        for batch in ctx.batches(rows=BATCH_ROWS):
            torch_step(model, optimizer, batch["x"])
            log.write(f"{time.monotonic():.6f}\n")


def torch_model(hidden: Sequence[int]) -> Any:
    """Return a network for the rows, with hidden layers of these widths."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    widths = (WIDTH, *hidden)
    layers: list[nn.Module] = []
    for before, behind in itertools.pairwise(widths):
        layers += [nn.Linear(before, behind), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], _CLASSES))


def torch_step(model: Any, optimizer: Any, rows: Any) -> None:
    """Make a step on a batch of rows, of shape (rows, `WIDTH`)."""
    import torch

    x = torch.frac(rows * _SPREAD)
    label = (x[:, 0] * _CLASSES).long()
    optimizer.zero_grad()
    loss: Any = torch.nn.functional.cross_entropy(model(x), label)
    loss.backward()
    optimizer.step()


def train_in_tensorflow(ctx: Any, *, steps: Path) -> None:
    """Train on the rows; write a line for each step, with the monotonic clock's seconds."""
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((WIDTH,)),
            *(keras.layers.Dense(width, "relu") for width in _HIDDEN),
            keras.layers.Dense(_CLASSES),
        ]
    )
    optimizer = keras.optimizers.Adam(1e-4)
    optimizer.build(model.trainable_variables)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    ctx.checkpointed(model=model, optimizer=optimizer)

    @tf.function(reduce_retracing=True)
    def step(rows: Any) -> None:
        x = tf.math.floormod(rows * _SPREAD, 1.0)
        label = tf.cast(x[:, 0] * _CLASSES, tf.int32)
        with tf.GradientTape() as tape:
            loss = loss_of(label, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    with steps.open("a", buffering=1) as log:
        for batch in ctx.dataset(BATCH_ROWS, shapes={"x": (WIDTH,)}, columns=["x"]):
            step(batch["x"])
            log.write(f"{time.monotonic():.6f}\n")
