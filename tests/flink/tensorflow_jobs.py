"""Entry functions of TensorFlow jobs. They travel to the processes by value."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle

from tests.waiting import until

cloudpickle.register_pickle_by_value(sys.modules[__name__])

HOLD_S = 200.0
"""Longer than any test looks at a job that it holds."""
START_S = 120.0
"""For processes that import TensorFlow, on a machine that does other things as well."""
WEIGHTS = "model.weights.h5"


def build_model() -> Any:
    """Two features, one target; float64, so that orders of summation do not show."""
    import keras

    keras.utils.set_random_seed(1)
    return keras.Sequential(
        [
            keras.Input((2,), dtype="float64"),
            keras.layers.Dense(4, "tanh", dtype="float64"),
            keras.layers.Dense(1, dtype="float64"),
        ]
    )


def note(folder: str, ctx: Any, **facts: Any) -> None:
    """Leave the facts of one process, and its pid, in a file that is seen when complete."""
    name = f"{ctx.role}-{ctx.index}.{os.getpid()}"
    draft = Path(folder, f".{name}")
    draft.write_text(json.dumps({"attempt": ctx.attempt, "pid": os.getpid(), **facts}))
    draft.replace(Path(folder, f"{name}.json"))


def notes_of(folder: Path, node: str) -> list[dict[str, Any]]:
    """What the processes of a node have noted, oldest first."""
    files = sorted(folder.glob(f"{node}.*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [json.loads(path.read_text()) for path in files]


def until_job(
    job: Any, look: Callable[[], Any], what: str = "it", limit_s: float = START_S
) -> Any:
    """Look until something is seen; a job that has failed fails the test with its cause."""
    ended = job._j_client.getJobExecutionResult()

    def seen() -> Any:
        found = look()
        if not found and ended.isDone():
            job.wait(show_progress=False)
        return found

    return until(seen, what, limit_s, lambda: str(job.status()))


def hold(folder: str) -> None:
    """Stay until the test lets go."""
    until(Path(folder, "go").exists, "leave to go on", HOLD_S)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Let go of the job when the block is over, however it ends."""
    try:
        yield
    finally:
        (folder / "go").touch()


def save_weights(ctx: Any, model: Any, step: int) -> None:
    """Leave weights for an evaluator."""
    with ctx.checkpoint_path(step) as path:
        path.mkdir()
        model.save_weights(path / WEIGHTS)


def evaluate(ctx: Any) -> None:
    """Follow the checkpoints, and report how good each is."""
    import numpy as np

    model = build_model()
    model.compile(loss="mse")
    x = np.linspace(0, 1, 200).reshape(100, 2)
    for step, path in ctx.follow_checkpoints():
        model.load_weights(path / WEIGHTS)
        loss = model.evaluate(x, x.sum(axis=1), verbose=0)
        ctx.report(step=step, loss=loss)


def fits(folder: str, slow: Callable[[int], object] = lambda index: None) -> Any:
    """An entry: `fit` on parameter servers; each row is sent on by the thread that reads it."""

    def entry(ctx: Any) -> None:
        import keras
        import numpy as np
        import tensorflow as tf

        with ctx.parameter_servers():
            model = build_model()
        model.compile("adam", "mse", steps_per_execution=2)
        batches = 0

        def hand_on(ids: Any) -> Any:
            nonlocal batches
            batches += 1
            slow(ctx.index)
            count = len(ids)
            worker = np.full(count, ctx.index, np.int32)
            epoch = np.full(count, ctx.epoch, np.int32)
            ctx.emit({"worker": worker, "epoch": epoch, "id": ids})
            return ids

        def without_id(row: Any) -> Any:
            sent = tf.numpy_function(hand_on, [row["id"]], tf.int64)
            with tf.control_dependencies([sent]):
                return tf.identity(row["x"]), tf.identity(row["y"])

        class Report(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                if batches:
                    ctx.report(step=batches, loss=logs["loss"])
                if ctx.is_chief:
                    save_weights(ctx, model, epoch + 1)

        rows = ctx.dataset(64, shapes={"x": (2,)}).map(without_id)
        model.fit(rows, epochs=ctx.epochs, verbose=0, callbacks=[Report()])
        note(folder, ctx, batches=batches, modules=sorted(sys.modules))
        hold(folder)
        ctx.report(iterations=int(model.optimizer.iterations.numpy()))
        ctx.save(model)

    return entry


def steps_together(ctx: Any) -> None:
    """An entry: a loop of synchronous steps that emits each row's step and error."""
    import keras
    import tensorflow as tf

    model = build_model()
    optimizer = keras.optimizers.Adam(0.02)
    ctx.data_parallel(model, optimizer)
    step = step_function(tf, model, optimizer)
    for _ in range(ctx.epochs):
        for batch in ctx.dataset(64, shapes={"x": (2,)}):
            errors = step(batch["x"], batch["y"]).numpy()
            count = len(errors)
            ctx.emit(
                {
                    "step": [ctx.steps] * count,
                    "worker": [ctx.index] * count,
                    "epoch": [ctx.epoch] * count,
                    "id": batch["id"].numpy(),
                    "error": errors,
                }
            )
            ctx.report(loss=errors.mean())
    ctx.save(model)


def step_function(tf: Any, model: Any, optimizer: Any) -> Any:
    """A compiled step that returns the error of every row."""

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            errors = (tf.squeeze(model(x, training=True), 1) - y) ** 2
            loss = tf.reduce_mean(errors)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return errors

    return tf.function(step, autograph=False)
