"""How TensorFlow jobs fail and are cancelled, and what the cause says."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from time import monotonic
from typing import Any

import cloudpickle
import pytest

import headrace.tensorflow
from headrace.config import ExchangeConfig
from headrace.errors import JobFailedError
from tests.waiting import live_until_ended

from .conftest import MakeEnvironment
from .jvm import is_waiting_for_a_slot
from .paced_source import PacedSource
from .tensorflow_jobs import build_model, held, hold, until_job
from .training_jobs import add_numbers, split_rows

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CANCEL_S = 5.0
ROWS_SENT = 1024
"""Batches without a rest: a worker that waits for the rest of one has not counted it yet."""
RESTARTS = {
    "restart__strategy_type": "fixed-delay",
    "restart__strategy_fixed__delay_attempts": "1",
    "restart__strategy_fixed__delay_delay": "100 ms",
}


def fit(ctx: Any, rows: Any, *callbacks: Any) -> None:
    """Train synchronously with Keras' loop."""
    model = build_model()
    model.compile("adam", "mse")
    ctx.data_parallel(model)
    model.fit(rows, epochs=ctx.epochs, verbose=0, callbacks=list(callbacks))


def as_pair(row: Any) -> Any:
    return row["x"], row["y"]


def meets_null(ctx: Any) -> None:
    fit(ctx, ctx.dataset(64, shapes={"x": (2,)}).map(as_pair))


def raises_in_the_dataset(ctx: Any) -> None:
    import tensorflow as tf

    def look(ids: Any) -> Any:
        if 500 in ids:
            msg = "a row that I do not like"
            raise ValueError(msg)
        return ids

    def looked_at(row: Any) -> Any:
        with tf.control_dependencies([tf.numpy_function(look, [row["id"]], tf.int64)]):
            return tf.identity(row["x"]), tf.identity(row["y"])

    rows = ctx.dataset(64, columns=["id", "x", "y"], shapes={"x": (2,)})
    fit(ctx, rows.map(looked_at))


def raises_in_a_callback(ctx: Any) -> None:
    import keras

    class Dislike(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            if batch == 3 and ctx.index == 1:
                msg = "a step that I do not like"
                raise RuntimeError(msg)

    rows = ctx.dataset(64, columns=["x", "y"], shapes={"x": (2,)})
    fit(ctx, rows.map(as_pair), Dislike())


def steps_on_a_part(ctx: Any) -> None:
    """Worker 1 leaves out a variable that worker 0 has a gradient for."""
    import keras
    import tensorflow as tf

    model = build_model()
    optimizer = keras.optimizers.SGD(0.1)
    ctx.data_parallel(model, optimizer)
    variables = model.trainable_variables[: 4 - ctx.index]

    @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
    def step(x: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(model(x))
        optimizer.apply(tape.gradient(loss, variables), variables)

    for batch in ctx.dataset(64, columns=["x"], shapes={"x": (2,)}):
        step(batch["x"])


@pytest.mark.parametrize(
    ("entry", "cause"),
    [
        pytest.param(meets_null, ["DataError", "'k'", "NULL"], id="null"),
        pytest.param(
            raises_in_the_dataset,
            ["ValueError: a row that I do not like", "in look"],
            id="in-the-dataset",
        ),
        pytest.param(
            raises_in_a_callback,
            ["worker-1: RuntimeError: a step that I do not like", "in on_train_batch_end"],
            id="in-a-callback-of-fit",
        ),
        pytest.param(
            steps_on_a_part,
            ["UsageError", "the workers have gradients for different variables in one step"],
            id="in-the-all-reduce",
        ),
    ],
)
def test_what_is_raised_anywhere_in_the_loop_is_the_cause_of_the_failure(
    make_t_env: MakeEnvironment, entry: Callable[[Any], None], cause: list[str]
) -> None:
    workers = 1 if entry in (meets_null, raises_in_the_dataset) else 2
    t_env = make_t_env(workers)
    add_numbers(t_env)
    rows = split_rows(t_env, f"MOD(id, {workers})", more=", NULLIF(id, 500) AS k")
    plan = headrace.tensorflow.train(rows, entry, workers=workers, name="fails")
    with pytest.raises(JobFailedError) as caught:
        plan.submit().wait(timeout_s=110)
    for text in cause:
        assert text in caught.value.cause


@pytest.mark.parametrize("ps", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_restart_from_a_checkpoint_is_refused_with_what_to_do(
    make_t_env: MakeEnvironment, tmp_path: Path, ps: int
) -> None:
    checkpoints = str(tmp_path / "checkpoints")

    def entry(ctx: Any) -> None:
        if ps:
            with ctx.parameter_servers():
                model = build_model()
        else:
            model = build_model()
        model.compile("sgd", "mse")
        seen: set[Path] = set()
        for batch in ctx.dataset(64, columns=["x", "y"], shapes={"x": (2,)}):
            model.train_on_batch(batch["x"], batch["y"])
            seen.update(path.parent for path in Path(checkpoints).glob("*/chk-*/_metadata"))
            if len(seen) > 1:  # the file of one is there before it counts, this one later
                os.kill(os.getpid(), signal.SIGKILL)

    t_env = make_t_env(
        1,
        execution_checkpointing_interval="200 ms",
        execution_checkpointing_dir=(tmp_path / "checkpoints").as_uri(),
        **RESTARTS,
    )
    add_numbers(t_env, 1_000_000)
    plan = headrace.tensorflow.train(
        split_rows(t_env, "0"),
        entry,
        ps=ps,
        exchange=ExchangeConfig(slots=2, slot_bytes=65_536),  # checkpoints wait for its rows
        name="restored",
    )
    with pytest.raises(JobFailedError) as caught:
        plan.submit().wait(timeout_s=110)
    assert "restored from a Flink checkpoint or savepoint" in caught.value.cause
    assert "restart-strategy.type: none" in caught.value.cause


def fit_until_the_rows_stop(folder: str) -> Callable[[Any], None]:
    def entry(ctx: Any) -> None:
        import keras

        class Started(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                Path(folder, f"reached-{ctx.index}").touch()

        rows = ctx.dataset(64, columns=["x", "y"], shapes={"x": (2,)})
        fit(ctx, rows.map(as_pair), Started())

    return entry


def test_cancel_while_fit_waits_for_rows_ends_within_5_s(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def script(send: Callable[[Iterable[int]], None]) -> None:
        send(range(ROWS_SENT))
        hold(str(tmp_path))

    t_env = make_t_env(2)
    with PacedSource(script) as source, held(tmp_path):
        source.add_table(t_env, "numbers")
        plan = headrace.tensorflow.train(
            split_rows(t_env, "MOD(id, 2)"),
            fit_until_the_rows_stop(str(tmp_path)),
            workers=2,
            name="waits",
        )
        job = plan.submit()
        until_job(job, lambda: all((tmp_path / f"reached-{i}").exists() for i in range(2)))
        until_job(job, lambda: job.status().rows_in == ROWS_SENT)
        require_quick_cancel(job)


def stands_still(folder: str) -> Callable[[Any], None]:
    """Stays in a callback of a step of TensorFlow's, beside which the queue fills."""

    def entry(ctx: Any) -> None:
        import tensorflow as tf

        def look(ids: Any) -> Any:
            Path(folder, "reached-0").touch()
            live_until_ended()

        rows = ctx.dataset(64, columns=["id"])
        for _ in rows.map(lambda row: tf.numpy_function(look, [row["id"]], tf.int64)):
            pass

    return entry


def test_cancel_while_a_step_stands_still_and_the_queue_is_full_ends_within_5_s(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(1)
    add_numbers(t_env, 10_000_000)
    plan = headrace.tensorflow.train(
        split_rows(t_env, "0"),
        stands_still(str(tmp_path)),
        exchange=ExchangeConfig(slots=2, slot_bytes=65_536),
        name="full",
    )
    job = plan.submit()
    until_job(job, (tmp_path / "reached-0").exists)
    until_job(job, is_waiting_for_a_slot, "a full queue")
    require_quick_cancel(job)


def require_quick_cancel(job: Any) -> None:
    started_at = monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=30)
    assert monotonic() - started_at < CANCEL_S
