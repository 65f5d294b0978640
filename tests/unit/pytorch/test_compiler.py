"""Optimizers in worker processes do without Torch's compiler until something is compiled."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import nn

from tests.unit.pytorch.training import run

pytestmark = pytest.mark.timeout(120)


def steps_of(optimizer: Any, model: Any, *, is_compiled: bool = False) -> list[float]:
    """Make three steps; return the weights behind each."""

    def loss() -> Any:
        optimizer.zero_grad()
        found = model(torch.tensor([[1.0, 2.0], [3.0, -1.0]])).square().mean()
        found.backward()
        return found

    step = torch.compile(optimizer.step, backend="eager") if is_compiled else optimizer.step
    weights = []
    for _ in range(3):
        step(loss) if isinstance(optimizer, torch.optim.LBFGS) else (loss(), step())
        weights += [float(each) for each in model.weight.detach().flatten()]
    return weights


def made(kind: str) -> tuple[Any, Any]:
    """Make a small model and its optimizer, the same each time."""
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 0.5)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=0.1)
    return optimizer, model


def test_optimizers_step_as_ever_without_the_compiler_and_compiled() -> None:
    kinds = ("SGD", "AdamW", "RMSprop", "LBFGS")

    def train(ctx: Any) -> None:
        ways: dict[str, list[list[float]]] = {kind: [steps_of(*made(kind))] for kind in kinds}
        first, _ = made("SGD")
        first.load_state_dict(first.state_dict())
        torch.optim.lr_scheduler.StepLR(first, 1)
        without = "torch._dynamo" not in sys.modules
        compiled = steps_of(*made("SGD"), is_compiled=True)
        for kind in kinds:
            ways[kind].append(steps_of(*made(kind)))
        ctx.report(
            without=without,
            compiled=max(map(abs, map(float.__sub__, compiled, ways["SGD"][0]))),
            as_ever=all(before == after for before, after in ways.values()),
            grad=torch.is_grad_enabled(),
            **{kind: ways[kind][0][-1] for kind in kinds},
        )

    report = run(train, workers=2, timeout_s=90.0).reports[0]  # two: in processes
    assert report["without"] == 1, "an optimizer has imported torch._dynamo"
    assert report["compiled"] < 1e-6
    assert report["as_ever"] == 1
    assert report["grad"] == 1, "a step has left gradients off"
    for kind in kinds:
        assert report[kind] == steps_of(*made(kind))[-1], kind
