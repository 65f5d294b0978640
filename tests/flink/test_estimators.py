"""Estimators train on tables in Flink jobs, and what they have fitted scores others."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from pyflink.table import DataTypes, StreamTableEnvironment, Table
from torch import nn

from headrace.pytorch import TorchEstimator

from .conftest import MakeEnvironment
from .test_predict import written
from .training_jobs import add_numbers

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 1003
BATCH = 64
TRUTH = ([3.0, -2.0], 0.5)
Y = {"y": DataTypes.FLOAT()}


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def columns_of(ids: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of these rows: exact in 32 bits, as the SQL below computes them."""
    n = np.asarray(ids)
    x = np.stack([n % 7 / 8, n % 11 / 16], axis=1)
    y = x @ np.array(TRUTH[0]) + TRUTH[1]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def problem(t_env: StreamTableEnvironment, where: str = "TRUE") -> Table:
    """Rows of `numbers` with features a, b and the label late; the learner must find TRUTH."""
    return t_env.sql_query(
        "SELECT id, 'row' AS name, a, b, 3 * a - 2 * b + 0.5e0 AS late FROM (SELECT id, "
        "CAST(MOD(id, 7) AS DOUBLE) / 8 AS a, CAST(MOD(id, 11) AS DOUBLE) / 16 AS b "
        f"FROM numbers) WHERE {where}"
    )


def sgd(rate: float = 0.1) -> Any:
    return functools.partial(torch.optim.SGD, lr=rate, momentum=0.5)


def estimator(**changes: Any) -> TorchEstimator:
    chosen: dict[str, Any] = {
        "features": ["a", "b"],
        "label": "late",
        "outputs": Y,
        "batch_rows": BATCH,
        "epochs": 3,
    }
    return TorchEstimator(Line, nn.MSELoss(), sgd(), **{**chosen, **changes})


def plain(ids: list[int], epochs: int) -> tuple[nn.Module, list[float]]:
    """The same loop in torch alone; the model, and the mean loss of each epoch."""
    torch.manual_seed(0)
    model = Line()
    optimizer = sgd()(model.parameters())
    losses = []
    for _ in range(epochs):
        total = 0.0
        for start in range(0, len(ids), BATCH):
            x, y = columns_of(ids[start : start + BATCH])
            optimizer.zero_grad()
            loss: Any = nn.functional.mse_loss(model(x)[:, 0], y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        losses.append(total / len(ids))
    return model, losses


def test_one_worker_trains_bit_for_bit_as_a_plain_loop_and_held_out_rows_do_not_matter(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(1)
    add_numbers(t_env, ROWS)
    table, held_out = problem(t_env, "MOD(id, 5) <> 0"), problem(t_env, "MOD(id, 5) = 0")
    mae = nn.functional.l1_loss
    fitted = estimator(metrics={"mae": mae}).fit(table, held_out, show_progress=False)
    ids = [n for n in range(ROWS) if n % 5]
    model, losses = plain(ids, 3)
    found = fitted.module().state_dict()
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    assert fitted.history["loss"] == pytest.approx(losses, rel=1e-6)
    x, y = columns_of([n for n in range(ROWS) if n % 5 == 0])
    with torch.no_grad():
        errors = model(x)[:, 0] - y
    assert fitted.history["val_loss"][-1] == pytest.approx((errors**2).mean().item(), rel=1e-5)
    assert fitted.history["val_mae"][-1] == pytest.approx(errors.abs().mean().item(), rel=1e-5)
    assert list(fitted.history["rows"]) == [len(ids)] * 3
    assert list(fitted.history["val_rows"]) == [ROWS - len(ids)] * 3
    assert list(fitted.history["learning_rate"]) == [0.1] * 3
    assert fitted.history.best_epoch is None

    scored = fitted.transform(problem(t_env, "id < 500"), keep=["id"])
    rows = written(t_env, scored, "id BIGINT, y FLOAT", tmp_path / "out")
    with torch.no_grad():
        direct = model(columns_of(range(500))[0])[:, 0].tolist()
    assert [row["id"] for row in rows] == list(range(500))
    assert [row["y"] for row in rows] == pytest.approx(direct, rel=1e-5)
