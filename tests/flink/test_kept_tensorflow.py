"""TensorFlow workers that are killed go on at the step of the checkpoint, all of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import headrace.tensorflow

from .conftest import MakeEnvironment
from .kept_state import Killer, Turns
from .tensorflow_jobs import build_model, step_function
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir
from .test_kept_training import LIMIT_S, ROWS, UNEVEN, add_slow_numbers
from .test_operator_rows import CHECKPOINTS
from .training_jobs import STEPS, add_sink, columns_of, ids_by_step, read_rows, split_rows

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def trains(turns: Turns) -> Any:
    """An entry: synchronous steps, in the checkpoints with a `tf.train.Checkpoint` beside.

    Each batch is scaled by a number of the worker's global generator.
    """

    def entry(ctx: Any) -> None:
        import keras
        import tensorflow as tf

        model = build_model()
        optimizer = keras.optimizers.Adam(0.02)
        counter = tf.Variable(0, dtype=tf.int64)
        tf.random.set_global_generator(tf.random.Generator.from_seed(ctx.index))
        ctx.checkpointed(
            model=model, optimizer=optimizer, more=tf.train.Checkpoint(counter=counter)
        )
        ctx.data_parallel(model, optimizer)
        step = step_function(tf, model, optimizer)
        turns.begin(ctx)
        for batch in ctx.dataset(16, shapes={"x": (2,)}, columns=["x", "y", "id"]):
            scale = tf.random.get_global_generator().uniform((), dtype=tf.float64)
            errors = step(batch["x"] * scale, batch["y"]).numpy()
            count = len(errors)
            counter.assign_add(count)
            ctx.emit(
                {
                    "step": [ctx.steps] * count,
                    "worker": [ctx.index] * count,
                    "epoch": [ctx.epoch] * count,
                    "id": batch["id"].numpy(),
                    "error": errors,
                }
            )
            turns.look(ctx)
        ctx.report(rows=int(counter))
        ctx.save(model)

    return entry


@pytest.mark.timeout(300)  # processes that import TensorFlow start three times
@pytest.mark.parametrize(
    ("workers", "worker", "ranks"),
    [
        pytest.param(1, "0", (0,), id="one worker", marks=pytest.mark.long),
        pytest.param(2, UNEVEN, (0, 1), id="two workers"),
    ],
)
def test_workers_that_are_killed_end_with_the_model_of_the_steps_that_count(
    make_t_env: MakeEnvironment,
    tmp_path: Path,
    workers: int,
    worker: str,
    ranks: tuple[int, ...],
) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    t_env = make_t_env(workers, **CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp"))
    turns = Turns(Killer(tmp_path, tmp_path / "cp", 2), *ranks)
    add_slow_numbers(t_env, ROWS, 100_000)
    plan = headrace.tensorflow.train(
        split_rows(t_env, worker, more=", padding"),
        trains(turns),
        workers=workers,
        exchange=SMALL,
        output=STEPS,
        output_dir=tmp_path,
        name="trained",
    )
    job = plan.submit(add_sink(t_env, plan, tmp_path / "out"))
    result = job.wait(timeout_s=LIMIT_S + 60, show_progress=False)
    rows = read_rows(tmp_path / "out")
    assert len(list(tmp_path.glob("death-*"))) == 2
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    by_step = ids_by_step(rows)
    assert {row["step"] for row in rows} == set(range(1, len(by_step) + 1))
    for index in range(workers):
        report = result.status.nodes[f"worker-{index}"].report
        assert report["steps"] == len(by_step)
        assert report["rows"] == sum(row["worker"] == index for row in rows)

    model, optimizer = build_model(), keras.optimizers.Adam(0.02)
    step = step_function(tf, model, optimizer)
    generators = [tf.random.Generator.from_seed(index) for index in range(workers)]
    worker_of = {row["id"]: row["worker"] for row in rows}
    for ids in by_step:
        x, y = (each.numpy() for each in columns_of(ids))
        owners = [worker_of[each] for each in ids]
        scales = {
            each: generators[each].uniform((), dtype=tf.float64).numpy() for each in {*owners}
        }
        step(x * np.array([[scales[each]] for each in owners]), y)
    saved = keras.models.load_model(tmp_path / "model.keras")
    for mine, expected in zip(saved.get_weights(), model.get_weights(), strict=True):
        if workers == 1:
            np.testing.assert_array_equal(mine, expected)
        else:
            np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-9)
