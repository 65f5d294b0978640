"""TensorFlow workers of a running training become fewer and more, by the adaptive scheduler."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import headrace.tensorflow
from headrace.operator import JobHandle, JobResult
from tests.ports import free_ports
from tests.waiting import until

from .conftest import MakeEnvironment
from .tensorflow_jobs import START_S, build_model, step_function
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir
from .test_kept_training import add_slow_numbers
from .test_live_rescaling import ADAPTIVE, TWO_SLOTS, rescale
from .test_operator_rows import CHECKPOINTS
from .test_rescaled import UNCHAINED
from .training_jobs import STEPS, add_sink, columns_of, ids_by_step, read_rows

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 20_000
LIMIT_S = 200.0


def emit(ctx: Any, step: int, ids: Any) -> None:
    count = len(ids)
    ctx.emit(
        {
            "step": [step] * count,
            "worker": [ctx.index] * count,
            "epoch": [0] * count,
            "id": ids,
            "error": [0.0] * count,
        }
    )


def steps_by_itself(ctx: Any) -> None:
    """An entry with a loop of its own."""
    import keras
    import tensorflow as tf

    model = build_model()
    optimizer = keras.optimizers.Adam(0.02)
    ctx.checkpointed(model=model, optimizer=optimizer)
    ctx.data_parallel(model, optimizer)
    step = step_function(tf, model, optimizer)
    for batch in ctx.batches(rows=16):
        number = ctx.steps + 1
        step(batch["x"], batch["y"])
        emit(ctx, number, batch["id"])
    ctx.save(model)


def fits(ctx: Any) -> None:
    """An entry with Keras' `fit`; each batch's rows are sent on in its step."""
    import keras
    import numpy as np
    import tensorflow as tf

    model = build_model()
    optimizer = keras.optimizers.Adam(0.02)
    model.compile(optimizer, keras.losses.MeanSquaredError(dtype="float64"))
    ctx.checkpointed(model=model, optimizer=optimizer)
    ctx.data_parallel(model)
    learn = model.train_step

    def hand_on(ids: Any, steps: Any) -> Any:
        emit(ctx, int(steps) + 1, ids)
        return np.int64(0)

    def train_step(data: Any) -> Any:
        x, y, ids = data
        sent = tf.numpy_function(hand_on, [ids, optimizer.iterations.value], tf.int64)
        with tf.control_dependencies([sent]):
            return learn((tf.identity(x), tf.identity(y)))

    model.train_step = train_step
    rows = ctx.dataset(16, shapes={"x": (2,)}, columns=["x", "y", "id"])
    model.fit(rows.map(lambda row: (row["x"], row["y"], row["id"])), verbose=0)
    ctx.save(model)


def start(
    make_t_env: MakeEnvironment,
    folder: Path,
    entry: Any,
    workers: int | tuple[int, int],
    per_second: int,
    **options: str,
) -> JobHandle:
    kept = {**CHECKPOINTS, **RETRIES, **NARROW, **UNCHAINED, **in_dir(folder / "cp")}
    t_env = make_t_env(2, **{**kept, **options})
    add_slow_numbers(t_env, ROWS, per_second)
    rows = t_env.sql_query(
        "SELECT id, ARRAY[CAST(MOD(id, 7) AS DOUBLE) / 8, CAST(MOD(id, 11) AS DOUBLE) / 16] AS "
        "x, CAST(MOD(id, 13) AS DOUBLE) / 32 AS y, padding FROM numbers"
    )
    plan = headrace.tensorflow.train(
        rows,
        entry,
        workers=workers,
        exchange=SMALL,
        output=STEPS,
        output_dir=folder,
        name="trained",
        spare_after_s=None,
    )
    return plan.submit(add_sink(t_env, plan, folder / "out"))


def require_model_of(found: list[dict[str, Any]], folder: Path, result: JobResult) -> None:
    """Rows are in steps without a gap, and the model is that of one process."""
    import keras
    import numpy as np
    import tensorflow as tf

    assert sorted(row["id"] for row in found) == list(range(len(found)))
    by_step = ids_by_step(found)
    assert {row["step"] for row in found} == set(range(1, len(by_step) + 1))
    assert {node.report["steps"] for node in result.status.nodes.values()} == {len(by_step)}
    model, optimizer = build_model(), keras.optimizers.Adam(0.02)
    step = step_function(tf, model, optimizer)
    for ids in by_step:
        step(*(each.numpy() for each in columns_of(ids)))
    saved = keras.models.load_model(folder / "model.keras")
    for mine, expected in zip(saved.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.timeout(300)  # five processes that import TensorFlow, or six
@pytest.mark.parametrize(
    ("entry", "at_last"),
    [
        pytest.param(steps_by_itself, 1, id="own loop", marks=pytest.mark.long),
        pytest.param(fits, None, id="fit"),
    ],
)
def test_a_model_goes_on_in_fewer_workers_and_in_more(
    make_t_env: MakeEnvironment, tmp_path: Path, entry: Any, at_last: int | None
) -> None:
    (port,) = free_ports(1)
    options = {**ADAPTIVE, **TWO_SLOTS, "rest_port": str(port)}
    job = start(make_t_env, tmp_path, entry, (1, 3), 60, **options)
    url = f"http://localhost:{port}/jobs/{job.job_id}"

    def train_with(workers: int) -> None:
        def do() -> bool:
            status = job.status()
            return len(status.nodes) == workers and status.rows_in > 200

        until(do, f"{workers} workers that train", START_S, lambda: str(job.status()))

    train_with(2)  # as many as there are slots for
    for workers in (1, 2):
        rescale(url, workers)
        train_with(workers)
    stopped = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    found = read_rows(tmp_path / "out")
    assert len(found) < ROWS
    require_model_of(found, tmp_path, stopped)
    if at_last is None:
        return

    place = {"execution_state__recovery_path": str(stopped.savepoint)}
    later = start(make_t_env, tmp_path, entry, at_last, 100_000, **place)
    ended = later.wait(timeout_s=LIMIT_S, show_progress=False)
    assert sorted(ended.status.nodes) == [f"worker-{index}" for index in range(at_last)]
    found = read_rows(tmp_path / "out")
    assert len(found) == ROWS
    require_model_of(found, tmp_path, ended)
