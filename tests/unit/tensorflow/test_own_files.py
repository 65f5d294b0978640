"""`ctx.data_parallel` for workers that read their own files: no input from Flink."""

from __future__ import annotations

from typing import Any

import keras
import pytest
import tensorflow as tf

from headrace import testing

STEPS = (3, 5)
RATE = 0.25


def train_on_own_files(ctx: Any) -> None:
    """One weight towards 1 on worker 0, towards 2 on worker 1, which has more batches."""
    model = keras.Sequential(
        [keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")]
    )
    optimizer = keras.optimizers.SGD(RATE)
    ctx.data_parallel(model, optimizer)
    x, y = tf.ones((4, 1)), tf.fill((4, 1), float(ctx.rank + 1))
    for _ in range(STEPS[ctx.rank]):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        (gradient,) = tape.gradient(loss, model.trainable_variables)
        optimizer.apply([gradient], model.trainable_variables)
    ctx.report(weight=model.trainable_variables[0].numpy())


@pytest.mark.timeout(90)
def test_workers_have_equal_weight_and_one_that_ends_first_leaves_the_other_alone() -> None:
    result = testing.run(train_on_own_files, framework="tensorflow", workers=2, timeout_s=80.0)
    weight = 0.0
    for step in range(max(STEPS)):
        targets = [rank + 1 for rank in (0, 1) if step < STEPS[rank]]
        weight -= RATE * sum(2 * (weight - target) for target in targets) / len(targets)
    assert result.reports[1]["weight"] == pytest.approx(weight, abs=1e-6)
    assert result.reports[1]["steps"] == 5
