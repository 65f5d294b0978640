"""Restored optimizers have memory of their own."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headrace.pytorch.owning import own_state


def tensors(value: Any) -> list[torch.Tensor]:
    """Return all tensors below a value, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    nested = (dict, list)
    return [
        t for each in parts if isinstance(each, (torch.Tensor, *nested)) for t in tensors(each)
    ]


def stepped(kind: str) -> tuple[nn.Linear, Any]:
    """Make a model and an optimizer that has made two steps."""
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = getattr(torch.optim, kind)(model.parameters(), lr=torch.tensor(0.1))

    def loss() -> Any:
        optimizer.zero_grad()
        found = (model(torch.ones(2, 3)) - 1.0).square().sum()
        found.backward()
        return found

    for _ in range(2):
        optimizer.step(loss)
    return model, optimizer


def test_no_tensor_of_a_restored_optimizer_is_that_of_the_checkpoint() -> None:
    for kind in ("Adam", "LBFGS"):
        _, before = stepped(kind)
        kept = before.state_dict()
        model, optimizer = stepped(kind)
        optimizer.load_state_dict(kept)
        own_state(optimizer)
        there = {each.data_ptr() for each in tensors(kept)}
        own = tensors([*optimizer.state.values()])
        own += [group["lr"] for group in optimizer.param_groups]
        assert len(own) > 3, kind
        assert not there & {each.data_ptr() for each in own}, kind
        values = tensors([*before.state.values()])
        for mine, theirs in zip(own, values, strict=False):
            assert torch.equal(mine, theirs), kind
        given = [p for group in optimizer.param_groups for p in group["params"]]
        assert all(a is b for a, b in zip(given, model.parameters(), strict=True))
