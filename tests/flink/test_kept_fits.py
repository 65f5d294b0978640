"""Estimators whose worker is killed: Flink restarts the fit, which goes on as if it was not."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pyarrow as pa
import pytest
import torch
from pyflink.table import StreamTableEnvironment, Table
from torch import nn

from headrace.pytorch import EarlyStopping, TorchEstimator
from headrace.role import HELD_OUT as HELD_OUT_MARK
from headrace.tensorflow import KerasEstimator
from tests.unit.pytorch.test_fitting import fit as fit_torch_here

from .conftest import MakeEnvironment
from .kept_state import Killer
from .test_estimators import problem
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir
from .test_operator_rows import CHECKPOINTS

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 200
HELD_OUT = 40
LIMIT_S = 200


class Features:
    """Stacks a and b; kills its process in the pass `since`, the next one a pass later.

    Every batch comes here, those of held-out rows as well.
    """

    def __init__(self, killer: Killer | None, since: int = 0) -> None:
        self.killer = killer
        self.since = since
        self.calls = 0

    def __call__(self, columns: Mapping[str, Any]) -> Any:
        if self.killer is not None:
            if self.calls == 0:
                self.killer.begin()
            if self.calls >= (self.since + self.killer.deaths) * ROWS:
                self.killer.look()
            self.calls += 1
        a, b = columns["a"], columns["b"]
        if isinstance(a, torch.Tensor):
            return torch.stack([a, b], 1).float()
        return np.stack([a, b], 1).astype(np.float32)


def tables(t_env: StreamTableEnvironment) -> tuple[Table, Table]:
    """Rows to train on, and others; wide and slow, so that checkpoints fall between them."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT, padding STRING) WITH "
        "('connector'='datagen', 'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.padding.length'='1000', 'fields.id.end'='{ROWS + HELD_OUT - 1}', "
        f"'rows-per-second'='200', 'number-of-rows'='{ROWS + HELD_OUT}', "
        "'scan.parallelism'='1')"
    )
    each = 1 + ROWS // HELD_OUT
    return problem(t_env, f"MOD(id, {each}) <> 1"), problem(t_env, f"MOD(id, {each}) = 1")


def same_rows() -> pa.Table:
    """The rows of both tables, as the planner unites them."""
    n = np.arange(ROWS + HELD_OUT)
    a, b = n % 7 / 8, n % 11 / 16
    held_out = n % (1 + ROWS // HELD_OUT) == 1
    return pa.table({"a": a, "b": b, "late": 3 * a - 2 * b + 0.5, HELD_OUT_MARK: held_out})


def options(folder: Path) -> dict[str, str]:
    return {**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(folder)}


def build_torch() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))


@pytest.mark.timeout(300)
def test_a_fit_that_is_killed_twice_ends_with_the_bits_of_an_undisturbed_one(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """Batches of one row are the same wherever a checkpoint cuts them."""

    def chosen(killer: Killer | None) -> TorchEstimator:
        return TorchEstimator(
            build_torch,
            nn.MSELoss(),
            functools.partial(torch.optim.Adam, lr=0.01),
            features=Features(killer),
            label="late",
            metrics={"mae": nn.functional.l1_loss},
            schedule=functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5),
            # It only becomes smaller: the first epoch is the best, and the third the last.
            early_stopping=EarlyStopping(monitor="mae", patience=2, mode="max"),
            batch_rows=1,
            epochs=9,
            exchange=SMALL,
        )

    model, history = fit_torch_here(
        chosen(None), [same_rows()], tmp_path / "here", has_held_out=True
    )
    t_env = make_t_env(1, **options(tmp_path / "cp"))
    killed = chosen(Killer(tmp_path, tmp_path / "cp", 2))
    fitted = killed.fit(*tables(t_env), timeout_s=LIMIT_S, show_progress=False)
    assert len(list(tmp_path.glob("death-*"))) == 2
    assert list(history["rows"]) == [ROWS] * history.epochs
    assert list(history["val_rows"]) == [HELD_OUT] * history.epochs
    assert (history.epochs, history.best_epoch) == (3, 0)
    assert fitted.history.to_json() == history.to_json()
    found = fitted.module().state_dict()
    for name, value in model.items():
        assert torch.equal(found[name], value), name


@pytest.mark.timeout(300)
def test_two_workers_of_a_fit_go_on_together_with_every_row_once(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    chosen = TorchEstimator(
        functools.partial(nn.Linear, 2, 1),
        nn.MSELoss(),
        functools.partial(torch.optim.SGD, lr=0.2),
        features=Features(Killer(tmp_path, tmp_path / "cp", 1)),
        label="late",
        batch_rows=1,
        epochs=2,
        workers=2,
        exchange=SMALL,
    )
    t_env = make_t_env(2, **options(tmp_path / "cp"))
    fitted = chosen.fit(*tables(t_env), timeout_s=LIMIT_S, show_progress=False)
    assert len(list(tmp_path.glob("death-*"))) == 1
    assert list(fitted.history["rows"]) == [ROWS] * 2
    assert list(fitted.history["val_rows"]) == [HELD_OUT] * 2
    assert fitted.history["val_loss"][-1] < min(0.01, fitted.history["val_loss"][0])


def build_keras() -> Any:
    import keras

    keras.utils.set_random_seed(1)
    layers = [keras.layers.Dense(8, "tanh"), keras.layers.Dropout(0.2), keras.layers.Dense(1)]
    return keras.Sequential([keras.Input((2,)), *layers])


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_fit_that_is_killed_in_its_second_pass_ends_as_an_undisturbed_one(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    from tests.unit.tensorflow.test_fitting import fit as fit_keras_here

    def chosen(killer: Killer | None) -> KerasEstimator:
        return KerasEstimator(
            build_keras,
            "mse",
            "adam",
            features=Features(killer, since=1),
            label="late",
            metrics=["mae"],
            batch_rows=1,
            epochs=2,
            exchange=SMALL,
        )

    model, history = fit_keras_here(
        chosen(None), [same_rows()], tmp_path / "here", has_held_out=True
    )
    t_env = make_t_env(1, **options(tmp_path / "cp"))
    killed = chosen(Killer(tmp_path, tmp_path / "cp", 1))
    fitted = killed.fit(*tables(t_env), timeout_s=LIMIT_S, show_progress=False)
    assert len(list(tmp_path.glob("death-*"))) == 1
    assert list(fitted.history["rows"]) == [ROWS] * 2
    assert list(fitted.history["val_rows"]) == [HELD_OUT] * 2
    for name, values in history.items():
        assert fitted.history[name] == pytest.approx(values, rel=1e-6), name
    weights = fitted.keras_model().get_weights()
    for one, other in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-7)
