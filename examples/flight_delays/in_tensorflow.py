"""The twin in TensorFlow: two workers, a parameter server, an evaluator, and TensorBoard.

The evaluator gets no rows from Flink, so one more role of the job collects the held-out ones.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from pyflink.table import StreamTableEnvironment

import headrace.tensorflow
from examples.flight_delays.evaluation import Floats, Rows
from examples.flight_delays.features import (
    CODES,
    HOUR_MIN,
    NUMBERS,
    held_out_rows,
    training_rows,
)
from examples.flight_delays.history import HISTORY_FILE, write_history
from headrace.config import RoleConfig
from headrace.operator.training import TrainingPlan
from headrace.role import RoleContext
from headrace.tensorflow import TFContext

__all__ = ["plan", "predict"]

_MODEL_FILE = "model.keras"
_WEIGHTS_FILE = "delays.weights.h5"
_SHUFFLED_ROWS = 131_072
_CHECKPOINT_STEPS = 50
_FIRST_RATE, _RATE_DECAY = 3e-3, 0.3
_HELD_OUT_TIMEOUT_S = _TRAINED_TIMEOUT_S = 600.0


def plan(
    t_env: StreamTableEnvironment,
    out: Path,
    *,
    categories: Sequence[int],
    workers: int,
    epochs: int,
) -> TrainingPlan:
    """Plan the training on the view `features`; everything that it writes goes into `out`."""
    job = headrace.tensorflow.train(
        training_rows(t_env),
        functools.partial(train, categories=categories),
        workers=workers,
        ps=1,
        evaluator=functools.partial(watch, categories=categories),
        tensorboard=True,
        epochs=epochs,
        output_dir=out,
        checkpoint_dir=out / "checkpoints",
        name="flight-delays",
    )
    collector = RoleConfig(entry=functools.partial(collect, file=out / "held_out.npz"))
    job.cluster.add_role("held_out", collector, input=held_out_rows(t_env))
    return job


def predict(out: Path, rows: Rows, **_: Any) -> Floats:
    """Return how late the trained model expects the flights, in minutes, shape (rows,)."""
    model = keras.models.load_model(out / _MODEL_FILE, compile=False)
    predicted_min: Floats = model.predict(_inputs(rows), batch_size=8192, verbose=0)
    return predicted_min.astype(np.float64)


def train(ctx: TFContext, *, categories: Sequence[int]) -> None:
    """Train on the stream, at the own pace, on variables that all workers share.

    Two things make up for a stream that comes in the order of the calendar: a buffer that mixes
    months, and a learning rate that falls from epoch to epoch. The buffer still holds much of
    the last pass when the stream has ended, so the one that saves waits for the others' `fit`.
    """
    with ctx.parameter_servers():
        model = build_model(categories)
    model.compile(keras.optimizers.Adam(_FIRST_RATE), loss=loss, metrics=[loss_of_guessing])
    batches = ctx.dataset(
        rows=4096,
        label="late_min",
        shapes={"numbers": (len(NUMBERS),), "codes": (len(CODES),)},
    )
    rows = batches.unbatch().shuffle(_SHUFFLED_ROWS).batch(1024).prefetch(2)
    steps = Steps(ctx)
    rate = keras.callbacks.LearningRateScheduler(lambda epoch: _FIRST_RATE * _RATE_DECAY**epoch)
    model.fit(rows, epochs=ctx.epochs, callbacks=[rate, steps], shuffle=False, verbose=0)
    ctx.publish(f"trained/{ctx.index}", "yes")
    if ctx.is_chief:
        for index in range(ctx.parallelism):
            ctx.lookup(f"trained/{index}", _TRAINED_TIMEOUT_S)
    ctx.save(model, _MODEL_FILE)
    if ctx.is_chief:
        write_history(ctx.output_path(HISTORY_FILE), steps.losses, steps.guesses)


def collect(ctx: RoleContext, *, file: Path) -> None:
    """Write all rows into a file, and say where it is."""
    Rows.concatenate([Rows(**batch) for batch in ctx.batches(rows=8192)]).write(file)
    ctx.publish("held_out", str(file))


def watch(ctx: TFContext, *, categories: Sequence[int]) -> None:
    """Report how good each checkpoint is on the held-out flights, until the training ends.

    For the eye only: nothing is chosen by these figures, or the last ones would be too good.
    """
    rows = Rows.read(Path(ctx.lookup("held_out", _HELD_OUT_TIMEOUT_S)))
    model = build_model(categories)
    model.compile(loss=loss, metrics=[keras.metrics.MeanAbsoluteError(name="mae_min")])
    for step, path in ctx.follow_checkpoints():
        model.load_weights(path / _WEIGHTS_FILE)
        figures = model.evaluate(
            _inputs(rows), rows.late_min, batch_size=8192, return_dict=True, verbose=0
        )
        ctx.report(step=step, **figures)


class Steps(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
    """Notes the loss of each step; on the worker that leads, it saves checkpoints.

    Attributes:
        losses: Of the model, step by step.
        guesses: Of guessing the mean of the step's flights.
    """

    def __init__(self, ctx: TFContext) -> None:
        super().__init__()
        self._ctx = ctx
        self.losses: list[float] = []
        self.guesses: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Note the losses; Keras would go on to average them over the epoch."""
        self.losses.append(float(logs["loss"]))
        self.guesses.append(float(logs["loss_of_guessing"]))
        self.model.reset_metrics()
        step = len(self.losses)
        self._ctx.report(loss=self.losses[-1], step=step, epoch=self._ctx.epoch)
        if self._ctx.is_chief and step % _CHECKPOINT_STEPS == 0:
            with self._ctx.checkpoint_path(step) as path:
                path.mkdir()
                self.model.save_weights(path / _WEIGHTS_FILE)


def build_model(categories: Sequence[int]) -> keras.Model:
    """Return the network, untrained: embeddings for the categories, two hidden layers.

    It maps a flight's numbers (rows, n) and codes (rows, k) to minutes (rows,).
    """
    numbers = keras.Input((len(NUMBERS),), name="numbers")
    codes = keras.Input((len(categories),), dtype="int32", name="codes")
    known = [
        keras.layers.Embedding(count, min(8, (count + 1) // 2))(codes[:, place])
        for place, count in enumerate(categories)
    ]
    hidden = keras.layers.Concatenate()([numbers, *known])
    for _ in range(2):
        hidden = keras.layers.Dense(128, activation="relu")(hidden)
    hours = keras.layers.Reshape(())(keras.layers.Dense(1)(hidden))
    minutes = keras.layers.Rescaling(HOUR_MIN)(hours)  # the layers work with values of about 1
    return keras.Model({"numbers": numbers, "codes": codes}, minutes)


def loss(late_min: Any, predicted_min: Any) -> Any:
    """Return the Huber loss, in hours: few flights are very late, and nobody foresees them."""
    return keras.losses.huber(late_min / HOUR_MIN, predicted_min / HOUR_MIN, delta=1.5)


def loss_of_guessing(late_min: Any, predicted_min: Any) -> Any:  # noqa: ARG001
    """Return the loss of guessing the mean of the rows."""
    return loss(late_min, tf.fill(tf.shape(late_min), tf.reduce_mean(late_min)))


def _inputs(rows: Rows) -> dict[str, Any]:
    return {"numbers": rows.numbers, "codes": rows.codes}
