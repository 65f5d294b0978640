"""A restored process does not train on rows behind a checkpoint that lacks its model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from headrace.errors import PlanError
from headrace.exchange import End, MemoryFeed
from headrace.tensorflow import TFContext, TFEntry, TFSettings
from tests.unit.role.doubles import FakeLink, spec_in
from tests.unit.tensorflow.test_checkpointed import (
    SCHEMA,
    Trainer,
    batches,
    restored_from,
)
from tests.unit.tensorflow.test_checkpointed import run as run_context

# Keras 3.15 says so at the end of each pass over a dataset whose length is unknown.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]


def build_model(*, scales_loss: bool = False, **compiled: Any) -> keras.Model:
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.SGD(0.1)
    if scales_loss:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(optimizer, "mse", **compiled)
    return model


def run(
    directory: Path, entry: Callable[[TFContext], object], *, last: int = 4, **spec: Any
) -> None:
    """Run an entry as in a process of one worker; restored, unless something else is said."""
    facts: dict[str, Any] = {
        "index": 0,
        "parallelism": 1,
        "cluster": {"worker": ("localhost",)},
        "ports": {"worker": (1,)},
        "is_restored": True,
        **spec,
    }
    feed = MemoryFeed([*batches(0, last), End()], input_schema=SCHEMA)
    TFEntry(entry, TFSettings())(spec_in(directory, **facts), FakeLink(), feed=feed)


def fit(ctx: TFContext, model: keras.Model) -> None:
    model.fit(ctx.dataset(2, features=["x"], label="y"), shuffle=False, verbose=0)


def fit_in_common(ctx: TFContext, model: keras.Model) -> None:
    ctx.data_parallel(model)
    fit(ctx, model)


def train_on_batches(ctx: TFContext, model: keras.Model) -> None:
    for batch in ctx.batches(rows=2):
        model.train_on_batch(batch["x"].reshape(-1, 1), batch["y"])


def use_a_tape(ctx: TFContext, model: keras.Model) -> None:
    for x, y in ctx.dataset(2, features=["x"], label="y"):
        step(model, x, y)


def use_a_traced_tape(ctx: TFContext, model: keras.Model) -> None:
    traced = tf.function(step)
    for x, y in ctx.dataset(2, features=["x"], label="y"):
        traced(model, x, y)


def fit_what_was_traced_before(ctx: TFContext, model: keras.Model) -> None:
    pretrain(model)
    noted[:] = weights_of(model)
    fit(ctx, model)


def step(model: keras.Model, x: Any, y: Any) -> None:
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(x)[:, 0] - y) ** 2)
    grads = tape.gradient(loss, model.trainable_variables)
    model.optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))


def pretrain(model: keras.Model) -> None:
    own = tf.data.Dataset.from_tensors((tf.ones((2, 1)), tf.ones((2,))))
    model.fit(own.repeat(3), shuffle=False, verbose=0)


def weights_of(model: keras.Model) -> list[Any]:
    return [np.array(each.numpy()) for each in model.trainable_variables]


noted: list[Any] = []


@pytest.mark.parametrize(
    ("train", "compiled"),
    [
        (fit, {}),
        (fit, {"run_eagerly": True}),
        (fit, {"jit_compile": True}),
        (fit, {"scales_loss": True}),
        (fit_in_common, {}),
        (train_on_batches, {}),
        (train_on_batches, {"jit_compile": True}),
        (use_a_tape, {}),
        (use_a_traced_tape, {}),
        (fit_what_was_traced_before, {}),
        (fit_what_was_traced_before, {"jit_compile": True}),
    ],
)
def test_a_restored_job_does_not_train_a_model_that_was_not_restored(
    tmp_path: Path, train: Callable[[TFContext, Any], None], compiled: dict[str, Any]
) -> None:
    model = build_model(**compiled)
    noted[:] = weights_of(model)
    with pytest.raises(PlanError, match=r"^This job was restored from a Flink checkpoint"):
        run(tmp_path, lambda ctx: train(ctx, model))
    for before, after in zip(noted, weights_of(model), strict=True):
        np.testing.assert_array_equal(before, after)


def test_rows_are_looked_at_all_the_same(tmp_path: Path) -> None:
    model = build_model()
    seen: list[int] = []

    def look(ctx: TFContext) -> None:
        pretrain(model)
        rows = ctx.dataset(2, features=["x"], label="y")
        seen.append(len(model.predict(rows, verbose=0)))

    run(tmp_path, look)
    assert seen == [8]


def test_what_was_restored_is_trained_on_also_in_a_function_that_was_traced_before(
    tmp_path: Path,
) -> None:
    first = Trainer(loop="fit")
    (_, state), *_ = run_context(tmp_path, first, [*batches(0, 4), End()]).states
    restored = Trainer(loop="fit")

    def train(ctx: TFContext) -> None:
        own = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        own.compile(keras.optimizers.SGD(0.1), "mse")
        pretrain(own)
        restored(ctx)
        own.fit(tf.ones((2, 1)), tf.ones((2,)), verbose=0)

    apply = keras.optimizers.Optimizer.apply
    run(tmp_path, train, **restored_from(tmp_path, state))
    assert restored.steps == 8
    assert keras.optimizers.Optimizer.apply is apply


def test_nothing_is_looked_at_in_a_job_that_begins(tmp_path: Path) -> None:
    model = build_model()
    apply = keras.optimizers.Optimizer.apply

    def train(ctx: TFContext) -> None:
        assert keras.optimizers.Optimizer.apply is apply
        fit(ctx, model)

    run(tmp_path, train, is_restored=False)
    assert int(model.optimizer.iterations.numpy()) == 4
