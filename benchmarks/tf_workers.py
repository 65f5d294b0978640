"""Entry functions of the TensorFlow benchmarks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf

__all__ = ["BATCH_ROWS", "WIDTH", "Source", "leave_first_mark", "read_dataset", "train_timed"]

BATCH_ROWS = 256
WIDTH = 16

Source: TypeAlias = Literal["fed", "memory"]

_FEATURES = [f"f{i}" for i in range(WIDTH)]
_STEPS_PER_EXECUTION = 10
_MEET_TIMEOUT_S = 120.0


def build_model() -> Any:
    """Return the MLP 16-64-1."""
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            keras.layers.Dense(64, activation="relu"),
            keras.layers.Dense(1),
        ]
    )


def train_timed(ctx: Any, *, source: Source, steps: int, warm_up_steps: int) -> None:
    """Train by Keras' `fit`, on parameter servers or synchronously; report steps/s.

    The same code whatever the rows come from. The clock runs from the end of the warm-up to the
    last step; all workers begin together.

    Args:
        ctx: This worker.
        source: "fed" reads `ctx.dataset`, "memory" tensors of this process.
        steps: Steps of this worker.
        warm_up_steps: How many of them do not count.
    """
    keras.utils.set_random_seed(7)
    if "ps" in ctx.cluster_spec:
        with ctx.parameter_servers():
            model = build_model()
        model.compile("sgd", "mse", steps_per_execution=_STEPS_PER_EXECUTION)
    else:
        model = build_model()
        model.compile("sgd", "mse", steps_per_execution=_STEPS_PER_EXECUTION)
        ctx.data_parallel(model)
    if source == "fed":
        data = ctx.dataset(BATCH_ROWS, features=_FEATURES, label="y")
    else:
        data = _in_memory(ctx.index, steps)
    ctx.publish(f"ready/{ctx.index}", "yes")
    for index in range(ctx.parallelism):
        ctx.lookup(f"ready/{index}", _MEET_TIMEOUT_S)
    clock = _Clock(warm_up_steps)
    model.fit(data.prefetch(2), verbose=0, callbacks=[clock])
    ctx.report(steps_per_s=clock.steps_per_s, timed_steps=clock.timed_steps)


class _Clock(keras.callbacks.Callback):  # type: ignore[misc] # has no types
    """Takes the time of the steps behind the warm-up."""

    def __init__(self, warm_up_steps: int) -> None:
        super().__init__()
        self._warm_up_steps = warm_up_steps
        self._begin = 0.0
        self._end = 0.0
        self._begin_step = 0
        self._step = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras' name
        """Note the time of the steps that have just ended."""
        self._step = batch + 1
        self._end = time.perf_counter()
        if self._step <= self._warm_up_steps:
            self._begin, self._begin_step = self._end, self._step

    @property
    def timed_steps(self) -> int:
        """Steps behind the warm-up."""
        return self._step - self._begin_step

    @property
    def steps_per_s(self) -> float:
        """Steps a second behind the warm-up."""
        return self.timed_steps / (self._end - self._begin)


def _in_memory(seed: int, steps: int) -> tf.data.Dataset:
    random = np.random.default_rng(seed)
    x = random.standard_normal((steps * BATCH_ROWS, WIDTH), dtype=np.float32)
    return tf.data.Dataset.from_tensor_slices((x, x.sum(axis=1))).batch(BATCH_ROWS)


def read_dataset(ctx: Any, *, rows: int, batch_rows: int, warm_up_rows: int) -> None:
    """Read the first half of `rows` as Arrow batches, the other through `ctx.dataset`.

    Reports rows/s of both. Every value is looked at by neither: a bare iteration.
    """
    half = rows // 2
    batches = iter(ctx.arrow_batches(rows=batch_rows))
    begin, taken, timed = 0.0, 0, 0
    while taken < half:
        count = next(batches).num_rows
        if taken >= warm_up_rows:
            begin = begin or time.perf_counter()
            timed += count
        taken += count
    exchange = timed / (time.perf_counter() - begin)
    begin, taken, timed = 0.0, 0, 0
    for batch in ctx.dataset(batch_rows):
        count = batch[_FEATURES[0]].shape[0]
        if taken >= warm_up_rows:
            begin = begin or time.perf_counter()
            timed += count
        taken += count
    ctx.report(exchange=exchange, dataset=timed / (time.perf_counter() - begin))


def leave_first_mark(ctx: Any, *, marks: Path) -> None:
    """Train on the rows by a loop of its own; leave a mark at the first step."""
    if "ps" in ctx.cluster_spec:
        with ctx.parameter_servers():
            model = build_model()
        optimizer = keras.optimizers.SGD(0.01)
    else:
        model = build_model()
        optimizer = keras.optimizers.SGD(0.01)
        ctx.data_parallel(model, optimizer)

    @tf.function
    def step(x: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x) ** 2)
        variables = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))

    is_marked = False
    for batch in ctx.batches(64):
        step(tf.convert_to_tensor(batch["x"]))
        if not is_marked:
            is_marked = True
            part = marks / f"{ctx.index}.part"
            part.write_text(f"{time.monotonic()} {os.getpid()}")
            part.rename(marks / str(ctx.index))
