"""A Keras fit that is restored ends as if nothing had happened: model and history."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from headrace.errors import PlanError
from headrace.estimator import EarlyStopping, FitRecord
from headrace.tensorflow import KerasEstimator, TFEntry, TFSettings
from tests.unit.estimator.exported import KEPT
from tests.unit.estimator.restored import (
    ALONE,
    IN_STREAM,
    all_items,
    feed_of,
    items_behind,
    restored_from,
)
from tests.unit.role.doubles import FakeLink, spec_in
from tests.unit.role.test_restored_passes import SlowBarriers

from .test_fitting import BATCH, estimator, marked, plain, rows

pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]

LATER = 16


def drops() -> Any:
    """Draws at random in each step, and keeps running means."""
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(6),
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(1),
        ]
    )


def halved(epoch: int, rate: float) -> float:
    return rate if epoch == 0 else rate / 2


def fit(
    chosen: KerasEstimator,
    feed: SlowBarriers,
    folder: Path,
    *,
    export_to: Path | None = None,
    **spec: Any,
) -> tuple[list[Any], str]:
    """Fit in this process; return the saved weights and the history."""
    settings = TFSettings(
        epochs=chosen.epochs,
        output_dir=folder,
        export_to=export_to,
        keep_exports=KEPT,
        has_held_out=chosen.early_stopping is not None,
        is_stream=True,
    )
    entry = TFEntry(chosen._fitting(FitRecord(parameters=b"", run_id="one")), settings)
    work_dir = folder / "work"
    work_dir.mkdir(parents=True)
    entry(spec_in(work_dir, **{**ALONE, **spec}), FakeLink(), feed=feed)
    model = keras.models.load_model(folder / "model.keras", compile=False)
    return model.get_weights(), (folder / "history.json").read_text()


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        pytest.param({"epochs": 1}, 1, id="one epoch"),
        pytest.param({"epochs": 2, "schedule": halved}, 2, id="schedule"),
        pytest.param(
            {"epochs": 4, "early_stopping": EarlyStopping(patience=1, min_delta=1e9)},
            2,
            id="stops early",
        ),
    ],
)
def test_a_fit_ends_with_the_same_bits_from_wherever_it_is_restored(
    changes: dict[str, Any], epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.role.reader._ATTEND_EVERY_S", 0.0)
    monkeypatch.setattr("headrace.tensorflow.portions._PORTION_ROWS", BATCH)
    chosen = estimator(
        model=drops,
        optimizer=functools.partial(keras.optimizers.Adam, 0.05),
        metrics=["mae"],
        **changes,
    )
    table = rows(83)
    if chosen.early_stopping is not None:
        table = marked(table, rows(40, seed=6))
    feed = feed_of(all_items(table, LATER), table)
    weights, history = fit(chosen, feed, tmp_path / "undisturbed")
    assert history.count('"rows"') == epochs
    states = dict(feed.states)
    assert None in states
    assert len(states) > IN_STREAM + (4 if epochs > 1 else 0)
    # Each fit takes seconds to trace: some of the places, in the rows and behind them.
    for number in (1, *[*states][IN_STREAM + 1 : -1 : 5], None):
        state = states[number]
        folder = tmp_path / f"from {number}"
        rest = feed_of(items_behind(table, number), table)
        found, of_restored = fit(chosen, rest, folder, **restored_from(tmp_path, state))
        assert of_restored == history, number
        for one, other in zip(found, weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_fit_whose_steps_are_executed_together_keeps_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def compiled() -> Any:
        model = drops()
        model.compile("sgd", "mse", steps_per_execution=2)
        return model

    chosen = estimator(model=compiled, loss=None, optimizer=None, metrics=[])
    table = rows(60)
    feed = feed_of(all_items(table, 3), table)
    with caplog.at_level(logging.WARNING):
        fit(chosen, feed, tmp_path / "first")
    assert feed.states == []
    assert "steps_per_execution=2, so Flink's checkpoints hold no state" in caplog.text
    with pytest.raises(PlanError, match=r"restored from a Flink checkpoint"):
        fit(chosen, feed_of([], table), tmp_path / "second", is_restored=True)


def test_a_model_with_averaged_weights_gets_them_once_at_the_end(tmp_path: Path) -> None:
    """As one `fit` of Keras' does: each epoch goes on with what the steps have made."""
    averaged = functools.partial(keras.optimizers.SGD, 0.1, use_ema=True, ema_momentum=0.5)
    table = rows(48)
    feed = feed_of(all_items(table, 0), table)
    weights, history = fit(estimator(optimizer=averaged, epochs=3), feed, tmp_path)
    model, losses = plain(table, 3, averaged())
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    found = [each["loss"] for each in json.loads(history)["epochs"]]
    np.testing.assert_allclose(found, losses, rtol=1e-6)
