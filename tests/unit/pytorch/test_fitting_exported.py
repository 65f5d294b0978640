"""What `export_to` writes of a fit in PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headrace.estimator import EarlyStopping
from tests.unit.estimator.exported import Completing
from tests.unit.estimator.restored import all_items

from .test_fitting import marked, rows
from .test_fitting_restored import chosen_with, fit

pytestmark = pytest.mark.timeout(60)

LATER = 40


def test_a_version_is_the_model_of_its_checkpoint_and_not_the_best_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first epoch is the best one, and the third the last."""
    monkeypatch.setattr("headrace.role.reader._ATTEND_EVERY_S", 0.0)
    stopping = EarlyStopping(patience=2, min_delta=1e9)
    table, served = marked(rows(83), rows(40, seed=6)), tmp_path / "served"
    feed = Completing(all_items(table, LATER), table, served, ".pt")
    chosen = chosen_with(epochs=9, early_stopping=stopping)
    fitted, history = fit(chosen, feed, tmp_path / "model", export_to=served)
    assert history.count('"rows"') == 3

    differs = {}  # from the best so far, which it is before the next epoch's first step
    for path, held in feed.held():
        version = torch.load(path, weights_only=True)
        assert version.keys() == held["model"].keys()
        assert all(torch.equal(value, held["model"][name]) for name, value in version.items())
        if (best := held["fit"]["best"]) is not None:
            assert all(torch.equal(value, best[name]) for name, value in fitted.items())
            is_other = not torch.equal(version["layers.0.weight"], best["layers.0.weight"])
            differs[held["fit"]["epoch"]] = is_other
    assert differs == {1: True, 2: True}
    latest = torch.load(served / "latest.pt", weights_only=True)
    assert not torch.equal(latest["layers.0.weight"], fitted["layers.0.weight"])
