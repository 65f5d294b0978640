"""A training in TensorFlow on a stream writes the model of each completed checkpoint."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from pyflink.table import DataTypes

import headrace.tensorflow
from headrace.errors import JobFailedError
from headrace.tensorflow import KerasModel, SavedModel

from .conftest import MakeEnvironment
from .exported import (
    ALL_KEPT,
    CHECKPOINTS,
    KEEP_EXPORTS,
    SERVED,
    add_endless_numbers,
    ids_in,
    objects_in,
    require_rows_of_versions,
    rows_to_train_and_to_score,
    serve_while_training,
)
from .kept_state import Killer
from .tensorflow_jobs import build_model, step_function, until_job
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir
from .test_predict import written

cloudpickle.register_pickle_by_value(sys.modules[__name__])

STAY = {"execution_checkpointing_externalized__checkpoint__retention": "RETAIN_ON_CANCELLATION"}
KERAS = ".keras"
SCORED = 50


def trains(killer: Killer) -> Any:
    """An entry: a loop of steps, with all of it in the checkpoints."""

    def entry(ctx: Any) -> None:
        import keras
        import tensorflow as tf

        model = build_model()
        optimizer = keras.optimizers.Adam(0.02)
        ctx.checkpointed(model=model, optimizer=optimizer)
        ctx.data_parallel(model, optimizer)
        step = step_function(tf, model, optimizer)
        killer.begin()
        for batch in ctx.dataset(16, shapes={"x": (2,)}, columns=["x", "y"]):
            step(batch["x"], batch["y"])
            killer.look()

    return entry


def scores_of(weights: list[Any], x: Any) -> Any:
    """What `build_model` says with these weights, in NumPy."""
    first, first_bias, second, second_bias = weights
    return (np.tanh(x @ first + first_bias) @ second + second_bias)[:, 0]


@pytest.mark.timeout(200)  # two processes that import TensorFlow, one after the other
def test_each_keras_version_is_the_model_of_its_checkpoint_also_behind_a_kill(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    checkpoints, served = tmp_path / "cp", tmp_path / "served"
    options = {**CHECKPOINTS, **ALL_KEPT, **STAY, **RETRIES, **NARROW, **in_dir(checkpoints)}
    t_env = make_t_env(**options)
    add_endless_numbers(t_env)
    job = headrace.tensorflow.train(
        t_env.sql_query(
            "SELECT ARRAY[CAST(MOD(id, 7) AS DOUBLE) / 8, CAST(MOD(id, 11) AS DOUBLE) / 16] "
            "AS x, CAST(MOD(id, 13) AS DOUBLE) / 32 AS y, padding FROM numbers"
        ),
        trains(Killer(tmp_path, checkpoints, 1)),
        exchange=SMALL,
        export_to=served,
        keep_exports=1_000,
        name="trained",
        spare_after_s=None,  # its import would take a core
    ).submit()
    try:
        import keras

        until_job(job, lambda: list(tmp_path.glob("death-*")), "the kill")
        before = max(ids_in(served, KERAS), default=0)
        until_job(job, lambda: ids_in(served, KERAS)[-1:] > [before + 4], "later versions")
    finally:
        job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=60, show_progress=False)

    ids = ids_in(served, KERAS)
    held = []
    for checkpoint_id in ids:
        path = served / f"checkpoint-{checkpoint_id}{KERAS}"
        version = keras.models.load_model(path, compile=False).variables
        held.append([*objects_in(checkpoints, checkpoint_id)["model"].values()])
        for mine, theirs in zip(version, held[-1], strict=True):
            np.testing.assert_array_equal(mine.numpy(), theirs)
    moved = [not np.array_equal(one[0], other[0]) for one, other in pairwise(held)]
    restored = min(each for each in ids if each > before)  # its barrier may come before a row
    still = {later for later, has_moved in zip(ids[1:], moved, strict=True) if not has_moved}
    assert still <= {restored}, "a model at rest shows nothing"

    t_env = make_t_env()
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='1', "
        f"'fields.id.end'='{SCORED}', 'number-of-rows'='{SCORED}')"
    )
    scored = headrace.tensorflow.predict(
        t_env.sql_query("SELECT id, id / 8.0e0 AS a, id / 16.0e0 AS b FROM numbers"),
        KerasModel(served / "latest.keras"),
        inputs=["a", "b"],
        outputs={"y": DataTypes.DOUBLE()},
        keep=["id"],
    )
    rows = written(t_env, scored, "id BIGINT, y DOUBLE", tmp_path / "out")
    assert len(rows) == SCORED
    x = np.array([[row["id"] / 8, row["id"] / 16] for row in rows])
    found = np.array([row["y"] for row in rows])
    np.testing.assert_allclose(found, scores_of(held[-1], x), rtol=1e-9)
    assert not np.allclose(found, scores_of(held[-2], x), rtol=1e-9)


def counts_rows(suffix: str) -> Any:
    """An entry: train a model whose factor is the number of rows it has been trained on."""

    def entry(ctx: Any) -> None:
        import keras

        layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="zeros")
        model = keras.Sequential([keras.Input((1,)), layer])
        ctx.checkpointed(model=model)
        if suffix != KERAS:
            ctx.exported(model, form="saved_model")
        for batch in ctx.batches(rows=16):
            layer.kernel.assign_add([[float(len(batch["id"]))]])

    return entry


def factor_of_keras(path: Path) -> float:
    import keras

    return float(keras.models.load_model(path, compile=False).layers[0].kernel[0, 0])


def factor_of_saved_model(path: Path) -> float:
    import tensorflow as tf

    one = tf.ones((1, 1))
    (score,) = tf.saved_model.load(str(path)).signatures["serving_default"](one).values()
    return float(score[0, 0])


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("suffix", "handle", "factor_of"),
    [
        pytest.param(KERAS, KerasModel, factor_of_keras, id="keras"),
        pytest.param("", SavedModel, factor_of_saved_model, id="SavedModel"),
    ],
)
def test_a_job_serves_the_keras_model_that_it_trains(
    make_t_env: MakeEnvironment,
    tmp_path: Path,
    suffix: str,
    handle: Any,
    factor_of: Callable[[Path], float],
) -> None:
    served = tmp_path / "served"
    t_env = make_t_env(**CHECKPOINTS, **in_dir(tmp_path / "cp"))
    to_train, to_score = rows_to_train_and_to_score(t_env)
    plan = headrace.tensorflow.train(
        to_train,
        counts_rows(suffix),
        export_to=served,
        keep_exports=KEEP_EXPORTS,
        name="counted",
        spare_after_s=None,  # its import would take a core
    )
    scored = headrace.tensorflow.predict(
        to_score,
        handle(served / f"latest{suffix}"),
        inputs=["x"],
        outputs={"y": DataTypes.FLOAT()},
        **SERVED,
    )
    rows = serve_while_training(t_env, plan, scored, tmp_path, 200.0)
    require_rows_of_versions(rows, served, suffix, factor_of)
