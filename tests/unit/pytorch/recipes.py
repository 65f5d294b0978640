"""What users train with: models, optimizers, schedules, clipping, accumulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

_FEATURES = 3


class TwoHeads(nn.Module):
    """Rows of kind 0 go through one head, rows of kind 1 through another."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(_FEATURES, 4)
        self.heads = nn.ModuleList([nn.Linear(4, 1), nn.Linear(4, 1)])

    def forward(self, batch: Any) -> torch.Tensor:
        body = torch.tanh(self.body(batch["x"]))
        out = torch.zeros(len(body), dtype=body.dtype)
        for kind, head in enumerate(self.heads):
            of_kind = (batch["kind"] == kind).nonzero().squeeze(1)
            if len(of_kind):
                out = out.index_put((of_kind,), head(body[of_kind]).squeeze(1))
        return out


class Plain(nn.Module):
    """Columns in, one value for each row out."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, batch: Any) -> torch.Tensor:
        values: torch.Tensor = self.layers(batch["x"])
        return values.squeeze(1)


def _net() -> nn.Module:
    return Plain(nn.Linear(_FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))


def _half_frozen() -> nn.Module:
    model = _net()
    next(model.parameters()).requires_grad = False
    return model


def _normalised() -> nn.Module:
    return Plain(nn.Linear(_FEATURES, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1))


def _momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def _adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.02)


def _two_groups(model: nn.Module) -> torch.optim.Optimizer:
    first, *rest = model.parameters()
    groups: list[dict[str, Any]] = [{"params": [first], "lr": 0.01}, {"params": rest}]
    return torch.optim.AdamW(groups, lr=0.05, weight_decay=0.1)


def _halving(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train; the same with Headrace and with plain torch."""

    build: Callable[[], nn.Module] = _net
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] = _momentum
    scheduler: Callable[[torch.optim.Optimizer], Any] | None = None
    reduction: str = "mean"
    clips: str | None = None  # "before_step", or "explicit": in the loop
    accumulate: int = 1
    zeroes: bool = True  # False: zero_grad is forgotten
    steps_per_batch: int = 1  # 2: optimizer.step() is called twice
    dtype: torch.dtype = torch.float64

    @property
    def numpy_dtype(self) -> Any:
        return np.float64 if self.dtype == torch.float64 else np.float32

    def model(self) -> nn.Module:
        torch.manual_seed(3)
        return self.build().to(self.dtype)

    def clipper(self, model: nn.Module) -> Callable[[], object]:
        return lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.05)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        for _ in range(self.steps_per_batch):
            optimizer.step()
        if self.zeroes:
            optimizer.zero_grad()

    def backward(self, model: nn.Module, batch: Any, *, share: float | None = None) -> None:
        """Add the gradients of a batch; `share`: its part of the step, None: an equal one."""
        errors = (model(batch) - batch["y"]) ** 2
        if self.reduction == "sum":
            loss: Any = errors.sum() * 0.01
        else:
            loss = errors.mean() * (1 / self.accumulate if share is None else share)
        loss.backward()


RECIPES: Mapping[str, Recipe] = {
    "sgd": Recipe(optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=0.1)),
    "momentum": Recipe(),
    "momentum-float32": Recipe(dtype=torch.float32),
    "adam": Recipe(optimizer=_adam),
    "adam-with-schedule": Recipe(optimizer=_adam, scheduler=_halving),
    "two-parameter-groups": Recipe(optimizer=_two_groups, scheduler=_halving),
    "sum-of-losses": Recipe(reduction="sum"),
    "clipped-before-step": Recipe(clips="before_step"),
    "clipped-in-the-loop": Recipe(clips="explicit", optimizer=_adam),
    "accumulated": Recipe(accumulate=2),
    "accumulated-sums": Recipe(accumulate=3, reduction="sum", optimizer=_adam),
    "accumulated-and-clipped": Recipe(accumulate=2, clips="before_step"),
    "frozen-parameters": Recipe(build=_half_frozen),
    "two-heads": Recipe(build=TwoHeads),
    "two-heads-adam": Recipe(build=TwoHeads, optimizer=_adam),
    "zero-grad-forgotten": Recipe(zeroes=False, optimizer=_adam),
    "stepped-twice": Recipe(steps_per_batch=2),
    "normalised": Recipe(build=_normalised),
}
