"""What `export_to` writes of a fit in Keras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from headrace.errors import ConfigError
from headrace.estimator import EarlyStopping
from tests.unit.estimator.exported import Completing
from tests.unit.estimator.restored import all_items, feed_of

from .test_fitting import BATCH, estimator, line, marked, rows
from .test_fitting_restored import LATER, drops, fit

pytestmark = [
    pytest.mark.timeout(200),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]


def require_equal(found: list[Any], wanted: list[Any]) -> None:
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_version_is_the_model_of_its_checkpoint_and_not_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch is the best one, and the third the last."""
    monkeypatch.setattr("headrace.role.reader._ATTEND_EVERY_S", 0.0)
    monkeypatch.setattr("headrace.tensorflow.portions._PORTION_ROWS", BATCH)
    stopping = EarlyStopping(patience=2, min_delta=1e9)
    table, served = marked(rows(83), rows(40, seed=6)), tmp_path / "served"
    feed = Completing(all_items(table, LATER), table, served, ".keras")
    chosen = estimator(model=drops, epochs=9, early_stopping=stopping)
    fitted, history = fit(chosen, feed, tmp_path / "model", export_to=served)
    assert history.count('"rows"') == 3

    differs = {}  # from the best so far, which it is before the next epoch's first step
    for path, held in feed.held():
        version = keras.models.load_model(path, compile=False).get_weights()
        require_equal(version, [v for name, v in held["model"].items() if "seed" not in name])
        if (best := held["fit"]["best"]) is not None:
            require_equal(fitted, best)
            differs[held["fit"]["epoch"]] = not np.array_equal(version[0], best[0])
    assert differs == {1: True, 2: True}
    latest = keras.models.load_model(served / "latest.keras", compile=False)
    assert not np.array_equal(latest.get_weights()[0], fitted[0])


def test_a_fit_that_keeps_nothing_exports_nothing_and_says_so_before_the_first_row(
    tmp_path: Path,
) -> None:
    def compiled() -> Any:
        model = line()
        model.compile("sgd", "mse", steps_per_execution=2)
        return model

    chosen = estimator(model=compiled, loss=None, optimizer=None)
    table = rows(60)
    with pytest.raises(ConfigError, match=r"export_to= .* compiled with steps_per_execution=2"):
        fit(chosen, feed_of(all_items(table, 0), table), tmp_path, export_to=tmp_path / "to")
    assert not (tmp_path / "to").exists()
