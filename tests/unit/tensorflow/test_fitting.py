"""What the workers of a `KerasEstimator` do: the content of model and history is checked."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from headrace import testing
from headrace.errors import ConfigError, DataError
from headrace.estimator import EarlyStopping, FitRecord, History
from headrace.role import HELD_OUT
from headrace.tensorflow import KerasEstimator, TFEntry, TFSettings

pytestmark = [
    pytest.mark.timeout(200),
    # Keras, where it saves a model
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

BATCH = 16
WEIGHTS = np.array([1.0, -2.0, 0.5])


def line() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


def rows(count: int, seed: int = 5) -> pa.Table:
    """Features a, b, c, and the label y, which a line explains."""
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    y = (x @ WEIGHTS + 0.3).astype(np.float32)
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y})


def marked(table: pa.Table, held_out: pa.Table) -> pa.Table:
    """Both tables as the planner unites them: held-out rows between the others."""
    both = pa.concat_tables([held_out[:7], table, held_out[7:]])
    mark = np.ones(len(both), bool)
    first = len(held_out[:7])
    mark[first : first + len(table)] = False
    return both.append_column(HELD_OUT, pa.array(mark))


def estimator(**changes: Any) -> KerasEstimator:
    chosen: dict[str, Any] = {
        "model": line,
        "loss": "mse",
        "optimizer": functools.partial(keras.optimizers.SGD, 0.1),
        "features": ["a", "b", "c"],
        "label": "y",
        "batch_rows": BATCH,
        "epochs": 2,
    }
    return KerasEstimator(**{**chosen, **changes})


def fit(
    chosen: KerasEstimator,
    tables: Sequence[pa.Table],
    folder: Path,
    *,
    has_held_out: bool = False,
) -> tuple[Any, History]:
    """Fit with one worker for each table; return the saved model and the history."""
    chosen._require_parameters()
    settings = TFSettings(
        epochs=chosen.epochs, output_dir=folder, has_held_out=has_held_out, is_stream=True
    )
    testing.run(
        TFEntry(chosen._fitting(FitRecord.of(chosen)), settings),
        pa.concat_tables(tables),
        workers=len(tables),
        has_port=True,
        split=list(tables) if len(tables) > 1 else None,
        timeout_s=150.0,
    )
    model = keras.models.load_model(folder / "model.keras", compile=False)
    return model, History.from_json((folder / "history.json").read_text())


def matrix(table: pa.Table) -> Any:
    return np.stack([table[name].to_numpy() for name in "abc"], 1)


def errors(model: Any, table: pa.Table) -> Any:
    return model.predict(matrix(table), verbose=0)[:, 0] - table["y"].to_numpy()


def plain(table: pa.Table, epochs: int, optimizer: Any = None) -> tuple[Any, list[float]]:
    """The same steps by Keras alone; the model and the loss of each epoch."""
    model = line()
    model.compile(optimizer or keras.optimizers.SGD(0.1), "mse")
    done = model.fit(
        matrix(table),
        table["y"].to_numpy(),
        batch_size=BATCH,
        epochs=epochs,
        shuffle=False,
        verbose=0,
    )
    return model, done.history["loss"]


def require_same(model: Any, wanted: Any, tolerance: float) -> None:
    for mine, theirs in zip(model.get_weights(), wanted.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=tolerance, atol=tolerance)


def test_one_worker_trains_as_keras_alone_and_looks_at_held_out_rows(tmp_path: Path) -> None:
    table, held_out = rows(101), rows(30, seed=6)
    chosen = estimator(metrics=["mae"], schedule=lambda epoch, rate: rate if epoch else 0.1)
    model, history = fit(chosen, [marked(table, held_out)], tmp_path, has_held_out=True)
    wanted, losses = plain(table, 2)
    require_same(model, wanted, 1e-6)
    assert list(history["loss"]) == pytest.approx(losses, rel=1e-4)
    assert list(history["rows"]) == [101.0] * 2
    assert list(history["val_rows"]) == [30.0] * 2
    off = errors(model, held_out)
    assert history["val_loss"][-1] == pytest.approx(float((off**2).mean()), rel=1e-4)
    mae = next(name for name in history if name.startswith("val_m"))
    assert history[mae][-1] == pytest.approx(float(np.abs(off).mean()), rel=1e-4)
    assert list(history["learning_rate"]) == pytest.approx([0.1, 0.1])


def test_two_workers_stop_together_and_keep_the_best_model(tmp_path: Path) -> None:
    """One of them has no row to train on: all steps are those of the other."""
    table, held_out = rows(100), rows(40, seed=6)
    rmse_of = functools.partial(keras.metrics.RootMeanSquaredError, name="rmse")
    chosen = estimator(
        epochs=30,
        metrics=[rmse_of],
        schedule=lambda epoch, rate: 0.1 * 3.0**epoch,
        early_stopping=EarlyStopping(monitor="rmse", patience=2),
    )
    parts = [marked(table[:0], held_out[:25]), marked(table, held_out[25:])]
    model, history = fit(chosen, parts, tmp_path, has_held_out=True)
    values = history["val_rmse"]
    best = min(range(len(values)), key=values.__getitem__)
    assert history.best_epoch == best
    assert history.epochs == best + 3 < 30
    assert list(history["val_rows"]) == [40.0] * history.epochs
    assert list(history["rows"]) == [100.0] * history.epochs
    # Not the mean of the workers' roots: their sums of squares were added up.
    rmse = float(np.sqrt((errors(model, held_out) ** 2).mean()))
    assert values[best] == pytest.approx(rmse, rel=1e-3)


def test_inputs_by_name_text_and_arrays_reach_the_model(tmp_path: Path) -> None:
    def build() -> Any:
        word = keras.Input((), dtype="string", name="word")
        x = keras.Input((2,), name="x")
        found = keras.layers.StringLookup(vocabulary=["low", "high"])(word)
        known = keras.layers.Flatten()(keras.layers.Embedding(3, 1)(found[:, None]))
        out = keras.layers.Dense(1)(keras.layers.Concatenate()([known, x]))
        model = keras.Model({"word": word, "x": x}, out)
        model.compile(keras.optimizers.Adam(0.1), "mse")
        return model

    random = np.random.default_rng(3)
    x = random.normal(size=(600, 2)).astype(np.float32)
    is_high = random.random(600) < 0.5
    label = x[:, 0] - x[:, 1] + 2.0 * is_high
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(601, dtype=np.int32) * 2), pa.array(x.reshape(-1))
    )
    words = pa.array(np.where(is_high, "high", "low"))
    table = pa.table({"word": words, "x": lists, "y": label.astype(np.float64)})
    by_name = estimator(model=build, loss=None, optimizer=None, features=None, epochs=10)
    _, history = fit(by_name, [table], tmp_path)
    assert history["loss"][-1] < 0.02 < history["loss"][0]


def arrays(count: int, width: int, labels: int) -> tuple[pa.Table, Any, Any]:
    """Features x of `width` numbers and labels y of `labels`, which are linear in them."""
    random = np.random.default_rng(4)
    x = random.normal(size=(count, width)).astype(np.float32)
    y = (x @ random.normal(size=(width, labels))).astype(np.float32)

    def column(matrix: Any) -> pa.Array:
        offsets = np.arange(count + 1, dtype=np.int32) * matrix.shape[1]
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.reshape(-1)))

    return pa.table({"x": column(x), "y": column(y)}), x, y


def test_arrays_of_any_width_are_features_and_labels(tmp_path: Path) -> None:
    def build() -> Any:
        keras.utils.set_random_seed(1)
        return keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])

    table, x, y = arrays(90, 5, 3)
    held_out, other_x, other_y = arrays(70, 5, 3)
    # A matrix as label in the metric too: its variables have the width of the labels.
    metric = functools.partial(keras.metrics.MeanAbsoluteError, name="off")
    chosen = estimator(model=build, features="x", epochs=3, metrics=[metric])
    model, history = fit(chosen, [marked(table, held_out)], tmp_path, has_held_out=True)
    wanted = build()
    wanted.compile(keras.optimizers.SGD(0.1), "mse")
    wanted.fit(x, y, batch_size=BATCH, epochs=3, shuffle=False, verbose=0)
    require_same(model, wanted, 1e-5)
    off = model.predict(other_x, verbose=0) - other_y
    assert history["val_loss"][-1] == pytest.approx(float((off**2).mean()), rel=1e-4)
    assert history["val_off"][-1] == pytest.approx(float(np.abs(off).mean()), rel=1e-4)


def test_what_is_wrong_with_held_out_rows_is_told_as_it_is(tmp_path: Path) -> None:
    held_out = rows(30, seed=6)
    values = [None, *held_out["b"].to_pylist()[1:]]
    held_out = held_out.set_column(1, "b", pa.array(values, pa.float32()))
    with pytest.raises(DataError, match=r"Column 'b' has 1 NULL in 16 rows, and nothing can"):
        fit(estimator(), [marked(rows(100), held_out)], tmp_path, has_held_out=True)


def test_a_function_as_features_sees_the_rows_of_a_batch(tmp_path: Path) -> None:
    def centred(columns: Any) -> Any:
        x = np.stack([columns[name] for name in "abc"], 1)
        return x - x.mean(axis=0)

    table = rows(100)
    model, _ = fit(estimator(features=centred, epochs=1), [table], tmp_path)
    wanted = line()
    wanted.compile(keras.optimizers.SGD(0.1), "mse")
    for start in range(0, 100, BATCH):
        x = matrix(table[start : start + BATCH])
        wanted.train_on_batch(x - x.mean(axis=0), table["y"].to_numpy()[start : start + BATCH])
    require_same(model, wanted, 1e-5)


@pytest.mark.parametrize(
    ("change", "table", "kind", "told"),
    [
        (
            {"optimizer": functools.partial(keras.optimizers.SGD, 1e20)},
            rows(100),
            DataError,
            r"The loss is (inf|nan) in epoch 0 \(from 0\), at step \d, on worker 0",
        ),
        ({}, rows(0), DataError, r"The table had no rows: nothing was trained"),
        ({"features": ["a", "b"]}, rows(9), ConfigError, r"The model takes .*\(rows, 3\)"),
        ({"model": lambda: 7}, rows(9), ConfigError, r"made a int, and no keras.Model"),
        (
            {"model": lambda: keras.Sequential([keras.layers.Dense(1)])},
            rows(9),
            ConfigError,
            r"model: it is not built",
        ),
        (
            {"loss": None, "optimizer": None},
            rows(9),
            ConfigError,
            r"it is not compiled, so loss= and optimizer= are needed",
        ),
        (
            {"early_stopping": EarlyStopping(monitor="auc")},
            rows(9),
            ConfigError,
            r"monitor='auc'\) is none of the values that are computed: loss",
        ),
        (
            {"metrics": [functools.partial(keras.metrics.MeanAbsoluteError, name="rows")]},
            rows(9),
            ConfigError,
            r"metrics: the name 'rows' is taken by the history",
        ),
        (
            {
                "label": ["y"],
                "metrics": [functools.partial(keras.metrics.F1Score, average=None)],
            },
            rows(9),
            ConfigError,
            r"'f1_score' has a result of shape \(1,\), and the history has one number",
        ),
        (
            {"loss": lambda y, p: 1 / 0},
            rows(9),
            ConfigError,
            r"on rows of zeros it raised Zero",
        ),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told_and_nothing_is_saved(
    change: dict[str, Any], table: pa.Table, kind: type[Exception], told: str, tmp_path: Path
) -> None:
    with pytest.raises(kind, match=told):
        fit(estimator(**change), [table], tmp_path)
    assert not (tmp_path / "model.keras").exists()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": 7}, r"model=7 must be a function that returns the model"),
        ({"loss": None}, r"loss=None and optimizer=.* belong together"),
        ({"optimizer": None}, r"loss='mse' and optimizer=None belong together"),
        ({"optimizer": 3}, r"optimizer=3 must be a name or what makes one"),
        ({"metrics": "mae"}, r"metrics='mae' must be a list"),
        ({"schedule": 0.1}, r"schedule=0.1 must be a function of epoch and learning rate"),
        ({"loss": None, "optimizer": None, "metrics": ["mae"]}, r"metrics= belong to loss="),
    ],
)
def test_parameters_that_cannot_work_are_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        estimator(**change)._require_parameters()
