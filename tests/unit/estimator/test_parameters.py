"""Parameters by the conventions of scikit-learn, and the files of an estimator."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headrace.errors import ConfigError
from headrace.estimator import EarlyStopping, FitRecord, History
from headrace.estimator.files import read_history, write_parameters
from headrace.estimator.parameters import Parameters
from headrace.pytorch import FittedTorchModel, TorchEstimator
from headrace.tensorflow import KerasEstimator

ADAM = functools.partial(torch.optim.Adam, lr=1e-3)


def build() -> nn.Module:
    return nn.Linear(2, 1)


def estimator(**changes: Any) -> TorchEstimator:
    chosen: dict[str, Any] = {
        "model": build,
        "loss": nn.MSELoss(),
        "optimizer": ADAM,
        "features": ["a", "b"],
        "label": "y",
    }
    return TorchEstimator(**{**chosen, **changes})


def test_what_is_given_is_kept_as_it_is_and_can_be_changed() -> None:
    features = ["a", "b"]
    chosen = estimator(features=features, epochs=7)
    found = chosen.get_params()
    assert found["features"] is features
    assert found["optimizer"] is ADAM
    assert found["epochs"] == 7
    assert set(found) == set(TorchEstimator.parameter_names())
    assert chosen.set_params(epochs=9, label="z") is chosen
    assert (chosen.epochs, chosen.label) == (9, "z")
    with pytest.raises(ConfigError, match=r"has no parameter 'epoch'; it has model, loss, opt"):
        chosen.set_params(workers=5, epoch=1)
    assert chosen.workers == 1


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_when_spares_are_started_reaches_the_plan(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, framework: str
) -> None:
    planned: list[float | None] = []

    def note(*_: object, spare_after_s: float | None, **__: object) -> None:
        planned.append(spare_after_s)

    monkeypatch.setattr(f"headrace.{framework}.estimator.train", note)
    chosen = estimator() if framework == "pytorch" else KerasEstimator(build, label="y")
    for after_s in (10.0, None):
        assert chosen.get_params()["spare_after_s"] == after_s
        chosen._plan_training(
            *(None, None, FitRecord.of(chosen)),
            output_dir=tmp_path,
            export_to=None,
            keep_exports=3,
            name="fit",
        )
        chosen.set_params(spare_after_s=None)
    assert planned == [10.0, None]


def test_parameters_of_parameters_have_two_names_in_one() -> None:
    class Outer(Parameters):
        def __init__(self, *, inner: Any = None) -> None:
            self.inner = inner

    chosen = Outer(inner=estimator(epochs=3))
    assert chosen.get_params()["inner__epochs"] == 3
    assert list(chosen.get_params(deep=False)) == ["inner"]
    chosen.set_params(inner__epochs=4)
    assert chosen.inner.epochs == 4
    other = estimator(epochs=1)
    chosen.set_params(inner__epochs=5, inner=other)  # in whatever order they are given
    assert chosen.inner is other
    assert other.epochs == 5
    alone = estimator(epochs=1)
    with pytest.raises(ConfigError, match=r"cannot set loss__x: loss=MSELoss\(\) has no param"):
        alone.set_params(epochs=9, loss__x=1)
    assert alone.epochs == 1


def test_scikit_learn_clones_and_searches_over_estimators() -> None:
    base = pytest.importorskip("sklearn.base")
    selection = pytest.importorskip("sklearn.model_selection")
    keras = KerasEstimator(build, "mse", "adam", label="y", early_stopping=EarlyStopping())
    for chosen in (estimator(epochs=7), keras):
        copy = base.clone(chosen)
        assert copy is not chosen
        for name, value in copy.get_params().items():
            assert type(value) is type(getattr(chosen, name)), name
        assert copy.epochs == chosen.epochs
    grid = selection.ParameterGrid({"epochs": [1, 2], "batch_rows": [64]})
    assert [base.clone(keras).set_params(**each).epochs for each in grid] == [1, 2]


def test_an_estimator_shows_what_differs_from_the_defaults() -> None:
    text = repr(estimator(epochs=7))
    assert text.startswith("TorchEstimator(model=<function build")
    assert text.endswith("features=['a', 'b'], label='y', epochs=7)")


class Older(Parameters):
    def __init__(self, *, epochs: int, depth: int) -> None:
        self.epochs = epochs
        self.depth = depth


class Wide(TorchEstimator):
    """An estimator of a user's own, with a parameter more."""

    def __init__(self, *, width: int = 2) -> None:
        super().__init__(build, nn.MSELoss(), ADAM, features=["a", "b"], label="y")
        self.width = width


def test_an_estimator_that_derives_from_another_is_saved_and_loaded(tmp_path: Path) -> None:
    record = FitRecord.of(Wide(width=7))
    record.write(tmp_path, History([{"loss": 1.0}]))
    (tmp_path / "model.pt").touch()
    for found in (
        Wide.load(tmp_path),
        TorchEstimator.load(tmp_path),
        FittedTorchModel.load(tmp_path).estimator,
    ):
        assert type(found) is Wide
        assert found.width == 7
    with pytest.raises(
        ConfigError,
        match=r"of a Wide, not of a KerasEstimator: use Wide.load, or FittedTorchModel.load",
    ):
        KerasEstimator.load(tmp_path)


def test_what_another_fit_has_written_is_not_taken_for_the_own(tmp_path: Path) -> None:
    first, second = FitRecord.of(estimator(epochs=1)), FitRecord.of(estimator(epochs=2))
    assert first.run_id != second.run_id
    first.write(tmp_path, History([{"loss": 1.0}]))
    assert read_history(tmp_path, first.run_id)["loss"] == (1.0,)
    with pytest.raises(ConfigError, match=r"history.json is of another fit.*`model_dir`"):
        read_history(tmp_path, second.run_id)
    second.write(tmp_path, History([{"loss": 2.0}]))
    assert read_history(tmp_path, second.run_id)["loss"] == (2.0,)
    assert TorchEstimator.load(tmp_path).epochs == 2


def test_an_estimator_is_saved_and_loaded_with_its_parameters(tmp_path: Path) -> None:
    weight = 2.0

    def weighted(outputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return weight * (outputs - labels).abs().mean()

    estimator(loss=weighted, epochs=7).save(tmp_path / "deep" / "place")
    found = TorchEstimator.load(tmp_path / "deep" / "place")
    assert found.epochs == 7
    assert found.loss(torch.ones(2), torch.zeros(2)).item() == 2.0
    with pytest.raises(ConfigError, match=r"There is no estimator.pkl in .*nothing was saved"):
        TorchEstimator.load(tmp_path)
    with pytest.raises(ConfigError, match=r"no model.pt, history.json: nothing was trained"):
        FittedTorchModel.load(tmp_path / "deep" / "place")
    older = type("TorchEstimator", (Older,), {})
    write_parameters(tmp_path, older(epochs=1, depth=3))
    with pytest.raises(ConfigError, match=r"parameters depth, which .* another version"):
        TorchEstimator.load(tmp_path)
    (tmp_path / "estimator.pkl").write_bytes(b"no pickle")
    with pytest.raises(ConfigError, match=r"estimator.pkl cannot be read: "):
        TorchEstimator.load(tmp_path)


def test_what_cannot_be_saved_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    lock = threading.Lock()
    chosen = estimator(metrics={"bad": lambda outputs, labels: lock})
    with pytest.raises(ConfigError, match=r"TorchEstimator\(metrics=.* cannot be saved"):
        chosen.save(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"model": nn.Linear(2, 1)}, r"model=Linear.* must be what makes it .*its class"),
        ({"optimizer": "adam"}, r"optimizer='adam' must be what makes it in each worker"),
        ({"optimizer": ADAM(nn.Linear(1, 1).parameters())}, r"optimizer=Adam"),
        ({"loss": nn.MSELoss}, r"loss=<class .*MSELoss'> must be called.*an instance of it"),
        ({"loss": "mse"}, r"loss='mse' must be called with \(outputs, labels\)"),
        ({"metrics": [nn.L1Loss()]}, r"metrics=\[.*\] must be a mapping of names"),
        ({"metrics": {"mae": "mae"}}, r"metrics\['mae'\]='mae' must be called"),
        ({"metrics": {"val_mae": print}}, r"the name 'val_mae' is taken by the history"),
        ({"loss": nn.MSELoss(reduction="sum")}, r"has reduction='sum': .*'mean'"),
        (
            {"loss": functools.partial(nn.functional.mse_loss, reduction="none")},
            r"has reduction='none'",
        ),
        ({"schedule": 0.1}, r"schedule=0.1 must be what makes it in each worker"),
        ({"schedule_every": "row"}, r"schedule_every='row' must be 'epoch' or 'step'"),
        ({"features": None}, r"features=None: a module does not name its inputs"),
        ({"batch_rows": 0}, r"batch_rows=0 must be a whole number of at least 1"),
        ({"epochs": 1.5}, r"epochs=1.5 must be a whole number"),
        ({"workers": -1}, r"workers=-1 must be a whole number"),
        ({"seed": "x"}, r"seed='x' must be a whole number of at least 0"),
        ({"early_stopping": 3}, r"early_stopping=3 must be an EarlyStopping\(...\), or None"),
        (
            {"early_stopping": EarlyStopping(monitor="mae")},
            r"monitor='mae'\) is none of .*loss",
        ),
        ({"outputs": ["y"]}, r"outputs=\['y'\] must be a mapping of column names to DataTypes"),
    ],
)
def test_parameters_that_cannot_work_are_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        estimator(**change)._require_parameters()
