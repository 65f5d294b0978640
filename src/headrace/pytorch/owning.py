"""Optimizers take restored tensors without a copy; here they get their own."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["own_state"]


def own_state(optimizer: torch.optim.Optimizer) -> None:
    """Copy the tensors of an optimizer's state, one by one.

    A tensor in it would keep the memory alive that it was restored from, and that holds the
    model and all else beside it.

    Source: torch/optim/optimizer.py, ``_process_value_according_to_param_policy``: `to`, which
    copies nothing where type and device are those of the parameter.
    """
    values: list[dict[Any, Any]] = [*optimizer.state.values(), *optimizer.param_groups]
    for each in values:
        for key, value in each.items():
            if isinstance(value, torch.Tensor):
                each[key] = value.clone()
