"""Learning rates of workers that step together: they must be the same, or the models drift."""

from __future__ import annotations

import torch

from headrace.errors import UsageError
from headrace.role.rounds import Tallies

__all__ = ["rates_of", "require_same_rates", "take_rates"]

_TOLERANCE = 1e-5  # they travel as float32


def rates_of(optimizer: torch.optim.Optimizer, groups: int) -> tuple[float, ...]:
    """Return the learning rate of each parameter group.

    Raises:
        UsageError: There are not `groups` of them any more.
    """
    if len(optimizer.param_groups) != groups:
        msg = (
            "A parameter group was added to the optimizer after ctx.data_parallel, which has "
            "fixed what the workers exchange. Add all groups before it; one whose parameters "
            "have no gradient yet is not stepped."
        )
        raise UsageError(msg)
    return tuple(float(group.get("lr", 0.0)) for group in optimizer.param_groups)


def require_same_rates(own: tuple[float, ...], totals: Tallies) -> None:
    """Compare an active worker's rates with those of all active workers.

    Raises:
        UsageError: They differ.
    """
    for mine, total in zip(own, totals.rates, strict=True):
        mean = total / totals.active
        if _differ(mine, mean):
            msg = (
                f"The workers' learning rates differ: {mine:g} here, {mean:g} on average, so "
                "their models would drift apart. Give the scheduler to ctx.data_parallel, "
                "which advances it also in steps that a worker only shares; or compute the "
                "rate from ctx.steps."
            )
            raise UsageError(msg)


def take_rates(optimizer: torch.optim.Optimizer, totals: Tallies) -> None:
    """Give a worker without rows the rates of the active ones."""
    for group, total in zip(optimizer.param_groups, totals.rates, strict=True):
        mean = total / totals.active
        if "lr" in group and _differ(float(group["lr"]), mean):
            group["lr"] = mean


def _differ(one: float, other: float) -> bool:
    return abs(one - other) > _TOLERANCE * max(abs(one), abs(other))
