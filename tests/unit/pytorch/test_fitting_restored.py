"""A fit that is restored ends as if nothing had happened: model and history, bit for bit."""

from __future__ import annotations

import functools
import gc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn

from headrace.errors import PlanError
from headrace.estimator import EarlyStopping, FitRecord
from headrace.framework.process import StateRef
from headrace.pytorch import TorchEntry, TorchEstimator, TorchSettings
from headrace.role.state_format import decode_state
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

from .test_fitting import estimator, marked, rows

pytestmark = pytest.mark.timeout(60)

LATER = 40


class Drops(nn.Module):
    """Draws at random in each step, and keeps running means."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


class Halves:
    """A schedule without a state."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def step(self) -> None:
        self.optimizer.param_groups[0]["lr"] /= 2


def chosen_with(**changes: Any) -> TorchEstimator:
    return estimator(
        model=Drops,
        optimizer=functools.partial(torch.optim.Adam, lr=0.05),
        metrics={"mae": nn.functional.l1_loss},
        **changes,
    )


def fit(
    chosen: TorchEstimator,
    feed: SlowBarriers,
    folder: Path,
    *,
    export_to: Path | None = None,
    **spec: Any,
) -> tuple[dict[str, Any], str]:
    """Fit in this process; return the saved state and the history."""
    settings = TorchSettings(
        epochs=chosen.epochs,
        output_dir=folder,
        export_to=export_to,
        keep_exports=KEPT,
        has_held_out=chosen.early_stopping is not None,
        device="cpu",
    )
    entry = TorchEntry(chosen._fitting(FitRecord(parameters=b"", run_id="one")), settings)
    work_dir = folder / "work"
    work_dir.mkdir(parents=True)
    entry(spec_in(work_dir, **{**ALONE, **spec}), FakeLink(), feed=feed)
    return torch.load(folder / "model.pt", weights_only=True), (
        folder / "history.json"
    ).read_text()


def steps_of(size: int) -> Any:
    return functools.partial(torch.optim.lr_scheduler.StepLR, step_size=size, gamma=0.7)


@pytest.mark.parametrize(
    ("changes", "epochs"),
    [
        pytest.param({"epochs": 1}, 1, id="one epoch"),
        pytest.param({"epochs": 3, "schedule": steps_of(1)}, 3, id="by epoch"),
        pytest.param(
            {"epochs": 3, "schedule": steps_of(4), "schedule_every": "step"}, 3, id="by step"
        ),
        pytest.param(
            {
                "epochs": 3,
                "schedule": functools.partial(
                    torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9
                ),
                "early_stopping": EarlyStopping(patience=9),
            },
            3,
            id="by loss",
        ),
        pytest.param(
            {"epochs": 5, "early_stopping": EarlyStopping(patience=1, min_delta=1e9)},
            2,
            id="stops early",
        ),
    ],
)
def test_a_fit_ends_with_the_same_bits_from_wherever_it_is_restored(
    changes: dict[str, Any], epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.role.reader._ATTEND_EVERY_S", 0.0)
    chosen = chosen_with(**changes)
    table = rows(107)
    if chosen.early_stopping is not None:
        table = marked(table, rows(40, seed=6))
    feed = feed_of(all_items(table, LATER), table)
    model, history = fit(chosen, feed, tmp_path / "undisturbed")
    assert history.count('"rows"') == epochs
    assert len(feed.states) > IN_STREAM + (5 if epochs > 1 else 0)
    assert feed.states[-1][0] is None
    last = len(feed.states) - 1
    for place in sorted({*range(0, last, 3), last - 1, last}):
        number, state = feed.states[place]
        folder = tmp_path / f"from {place}"
        rest = feed_of(items_behind(table, number), table)
        found, of_restored = fit(chosen, rest, folder, **restored_from(tmp_path, state))
        assert of_restored == history, place
        assert found.keys() == model.keys()
        for name, value in model.items():
            assert torch.equal(found[name], value), (place, name)


def test_a_schedule_without_a_state_is_refused_behind_a_checkpoint_only(
    tmp_path: Path,
) -> None:
    chosen = chosen_with(schedule=Halves, epochs=2)
    table = rows(60)
    feed = feed_of(all_items(table, 0), table)
    _, history = fit(chosen, feed, tmp_path / "first")
    assert '"learning_rate": 0.025' in history
    restored = restored_from(tmp_path, feed.states[0][1])
    with pytest.raises(PlanError, match=r"schedule made a Halves, which has no state_dict"):
        fit(chosen, feed_of(items_behind(table, 1), table), tmp_path / "second", **restored)
    untouched = (StateRef(path=None, index=0, parallelism=1),)
    facts: dict[str, Any] = {"is_restored": True, "states": untouched}
    feed = feed_of(all_items(table, 0), table)
    _, of_restored = fit(chosen, feed, tmp_path / "third", **facts)
    assert of_restored == history, "it had got no row"


def test_the_memory_of_a_restored_fit_is_let_go_before_the_first_row(tmp_path: Path) -> None:
    """Its best weights would keep all of it."""
    mapped: list[int] = []

    def looks(outputs: torch.Tensor, _: torch.Tensor) -> float:
        state = tmp_path / "state"
        if state.exists() and not mapped:  # once, at the first row of the restored fit
            gc.collect()
            mapped.append(Path("/proc/self/maps").read_text().count(f"{state}"))
        return float(outputs.mean())

    chosen = chosen_with(epochs=3, early_stopping=EarlyStopping(patience=9))
    chosen = chosen.set_params(metrics={"looks": looks})
    table = marked(rows(60), rows(40, seed=6))
    feed = feed_of(all_items(table, LATER), table)
    fit(chosen, feed, tmp_path / "first")
    number, state = next(each for each in feed.states if _best_in(each[1]) is not None)
    restored = restored_from(tmp_path, state)
    fit(chosen, feed_of(items_behind(table, number), table), tmp_path / "second", **restored)
    assert mapped == [0]


def _best_in(state: bytes) -> Any:
    return decode_state(memoryview(bytearray(state)))["objects"]["fit"]["best"]


def test_other_metrics_than_the_checkpoint_holds_are_refused(tmp_path: Path) -> None:
    table: pa.Table = rows(60)
    feed = feed_of(all_items(table, 0), table)
    fit(chosen_with(), feed, tmp_path / "first")
    restored = restored_from(tmp_path, feed.states[0][1])
    other = chosen_with().set_params(metrics={})
    with pytest.raises(PlanError, match=r"'fit' .* it holds 2 values, and these are loss"):
        fit(other, feed_of(items_behind(table, 1), table), tmp_path / "second", **restored)
