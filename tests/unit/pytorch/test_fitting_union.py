"""Several workers of a `TorchEstimator` do what one does on the union of their rows."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from headrace.config import TimeoutConfig
from tests.unit.pytorch.test_fitting import (
    BATCH,
    Line,
    estimator,
    fit,
    marked,
    matrix,
    require_same,
    rows,
)

pytestmark = pytest.mark.timeout(120)


def noisy(count: int, seed: int) -> pa.Table:
    """Rows that no line explains: every step and every row shows in the weights."""
    table = rows(count, seed)
    noise = np.random.default_rng(seed + 100).normal(size=count)
    return table.set_column(3, "y", pa.array(table["y"].to_numpy() + noise))


def union(
    tables: Sequence[pa.Table], epochs: int, schedule: Any, *, by_step: bool
) -> tuple[dict[str, Any], list[float], list[float]]:
    """The steps on the union of the tables' batches, in torch alone; losses and rates too."""
    torch.manual_seed(0)
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = schedule(optimizer)
    losses, rates = [], []
    for _ in range(epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        total = 0.0
        for start in range(0, len(tables[0]), BATCH):
            part = pa.concat_tables([each[start : start + BATCH] for each in tables])
            optimizer.zero_grad()
            y = torch.tensor(part["y"].to_numpy())
            loss: Any = nn.functional.mse_loss(model(matrix(part))[:, 0], y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
            if by_step:
                scheduler.step()
        if not by_step:
            scheduler.step()
        losses.append(total / sum(map(len, tables)))
    return dict(model.state_dict()), losses, rates


@pytest.mark.parametrize("every", ["step", "epoch"])
def test_two_workers_make_the_steps_of_a_plain_loop_on_the_union(
    every: Any, tmp_path: Path
) -> None:
    # As many batches, and the last of the second is much shorter.
    tables = [noisy(5 * BATCH, 5), noisy(4 * BATCH + 3, 6)]
    schedule = functools.partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.7)
    chosen = estimator(schedule=schedule, schedule_every=every)
    state, history = fit(chosen, tables, tmp_path, idle_after_s=20.0)  # all steps in pairs
    wanted, losses, rates = union(tables, 2, schedule, by_step=every == "step")
    require_same(state, wanted, rtol=1e-6, atol=1e-9)
    assert list(history["loss"]) == pytest.approx(losses, rel=1e-6)
    assert list(history["learning_rate"]) == pytest.approx(rates, rel=1e-9)
    assert rates[1] < rates[0]


def test_a_worker_may_look_at_held_out_rows_for_longer_than_all_took_to_meet(
    tmp_path: Path,
) -> None:
    def slow(outputs: torch.Tensor, labels: torch.Tensor) -> float:
        if len(outputs) == 7:  # held-out rows
            threading.Event().wait(8.0)
        return 0.0

    parts = [marked(rows(40), rows(0)), marked(rows(40), rows(7, seed=6))]
    limits = TimeoutConfig(gather_timeout_s=6.0)
    chosen = estimator(epochs=1, metrics={"slow": slow})
    _, history = fit(chosen, parts, tmp_path, has_held_out=True, timeouts=limits)
    assert list(history["val_rows"]) == [7.0]
