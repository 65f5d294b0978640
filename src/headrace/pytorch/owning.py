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
    for state in optimizer.state.values():
        for key, value in state.items():
            state[key] = _copied(value)
    for group in optimizer.param_groups:
        for key, value in group.items():
            if isinstance(value, torch.Tensor):  # a learning rate; the parameters are a list
                group[key] = value.clone()


def _copied(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, list) and any(isinstance(each, torch.Tensor) for each in value):
        return [_copied(each) for each in value]  # the history of LBFGS
    return value
