"""What users train with: models and optimizers of Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

FEATURES = 3
WORDS = 20

layers = keras.layers


def _net() -> Any:
    x = keras.Input((FEATURES,), name="x")
    word = keras.Input((), name="word", dtype="int64")
    hidden = layers.Dense(8, "tanh")(x)
    return keras.Model({"x": x, "word": word}, layers.Dense(1)(hidden))


def _embedded() -> Any:
    x = keras.Input((FEATURES,), name="x")
    word = keras.Input((), name="word", dtype="int64")
    told = layers.Embedding(WORDS, 4)(word)
    hidden = layers.Dense(8, "tanh")(layers.Concatenate()([x, told]))
    return keras.Model({"x": x, "word": word}, layers.Dense(1)(hidden))


def _normalised() -> Any:
    x = keras.Input((FEATURES,), name="x")
    word = keras.Input((), name="word", dtype="int64")
    hidden = layers.BatchNormalization()(layers.Dense(8)(x))
    return keras.Model({"x": x, "word": word}, layers.Dense(1)(keras.ops.tanh(hidden)))


def _half_frozen() -> Any:
    model = _net()
    model.layers[-1].trainable = False
    return model


def _momentum() -> Any:
    return keras.optimizers.SGD(0.05, momentum=0.9)


def _scheduled() -> Any:
    return keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.05, decay_steps=3, decay_rate=0.5)
    )


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the same with Headrace and without."""

    build: Callable[[], Any] = _net
    optimizer: Callable[[], Any] = _momentum
    reduction: str = "mean"

    def model(self) -> Any:
        keras.utils.set_random_seed(3)
        return self.build()

    def loss(self) -> Any:
        reduction = "sum" if self.reduction == "sum" else "sum_over_batch_size"
        return keras.losses.MeanSquaredError(reduction=reduction)


RECIPES: Mapping[str, Recipe] = {
    "momentum": Recipe(),
    "sgd": Recipe(optimizer=lambda: keras.optimizers.SGD(0.1)),
    "adam": Recipe(optimizer=lambda: keras.optimizers.Adam(0.02)),
    "adam-scheduled": Recipe(optimizer=_scheduled),
    "clipped": Recipe(optimizer=lambda: keras.optimizers.Adam(0.02, clipnorm=0.02)),
    "clipped-globally": Recipe(
        optimizer=lambda: keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.05)
    ),
    "sum-of-losses": Recipe(
        reduction="sum", optimizer=lambda: keras.optimizers.SGD(0.01, momentum=0.5)
    ),
    "embedding": Recipe(build=_embedded, optimizer=lambda: keras.optimizers.Adam(0.02)),
    "frozen-layer": Recipe(build=_half_frozen),
    "normalised": Recipe(build=_normalised),
}


def gradients_of(
    recipe: Recipe, model: Any, features: Any, label: Any, *, share: float
) -> list[Any]:
    """Return the gradients of one batch, whose part of the step is `share`."""
    with tf.GradientTape() as tape:
        loss = recipe.loss()(label[:, None], model(features, training=True)) * share
    found = tape.gradient(loss, model.trainable_variables)
    return [tf.convert_to_tensor(each) for each in found]
