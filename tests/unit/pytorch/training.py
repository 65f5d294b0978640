"""One training function for many splits, and the same steps in one process."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.utils.data import DataLoader

from headrace import testing
from headrace.testing import RunResult

FEATURES = 3
STEPS_SCHEMA = pa.schema([("step", pa.int64()), ("id", pa.int64())])

run = partial(testing.run, framework="pytorch")
"""Runs a plain function as `headrace.pytorch.train` does, without Flink."""


def build_table(rows: int) -> pa.Table:
    """Rows with an id, a target, and `FEATURES` features as equal-length lists."""
    random = np.random.default_rng(5)
    x = random.normal(size=(rows, FEATURES)).astype(np.float32)
    y = (x @ np.array([1.0, -2.0, 0.5], np.float32) + 0.3).astype(np.float32)
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * FEATURES), pa.array(x.reshape(-1))
    )
    return pa.table({"id": np.arange(rows), "x": lists, "y": y})


def build_model() -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))


def _sgd(model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), None


def _adam(model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.8)


OPTIMIZERS: Mapping[str, Callable[[nn.Module], tuple[torch.optim.Optimizer, Any]]] = {
    "sgd": _sgd,
    "adam": _adam,
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """An entry function: trains, and emits which rows went into which common step."""

    rows: int = 8
    optimizer: str = "sgd"
    loader: str = "none"
    leave_after: int | None = None

    def __call__(self, ctx: Any) -> None:
        model = build_model()
        optimizer, scheduler = OPTIMIZERS[self.optimizer](model)
        ctx.data_parallel(model, optimizer, scheduler)
        for number, batch in enumerate(self._batches(ctx), 1):
            step = np.full(len(batch["id"]), ctx.steps + 1)
            train_step(model, optimizer, batch)
            if scheduler is not None:
                scheduler.step()
            ctx.emit({"step": step, "id": batch["id"]})
            ctx.report(steps=step[0])
            if number == self.leave_after:
                break
        if self.leave_after is not None:
            ctx.join()
        ctx.save(model)
        ctx.report(steps=ctx.steps, **checksums(model))

    def _batches(self, ctx: Any) -> Any:
        if self.loader == "none":
            return ctx.batches(rows=self.rows)
        if self.loader == "batches":
            return DataLoader(ctx.dataset(rows=self.rows), batch_size=None)
        return DataLoader(ctx.dataset(), batch_size=self.rows)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    optimizer.zero_grad()
    loss: Any = nn.functional.mse_loss(model(batch["x"]).squeeze(1), batch["y"])
    loss.backward()
    optimizer.step()


def checksums(model: nn.Module) -> dict[str, float]:
    return {
        f"sum.{name}": float(value.double().sum()) for name, value in model.state_dict().items()
    }


def replay(result: RunResult, table: pa.Table, optimizer: str) -> nn.Module:
    """Train one process on the union batch of every step of a run."""
    assert result.emitted is not None
    ids: dict[int, list[int]] = defaultdict(list)
    for step, row in zip(*result.emitted.to_pydict().values(), strict=True):
        ids[step].append(row)
    x = torch.tensor(np.stack(table["x"].to_numpy()))
    y = torch.tensor(table["y"].to_numpy())
    model = build_model()
    stepper, scheduler = OPTIMIZERS[optimizer](model)
    for step in sorted(ids):
        train_step(model, stepper, {"x": x[ids[step]], "y": y[ids[step]]})
        if scheduler is not None:
            scheduler.step()
    return model
