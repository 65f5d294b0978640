"""From a model and an optimizer to a worker's part in the common steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import torch

from headrace.errors import ConfigError
from headrace.pytorch.flat import FlatGradients, require_parameters
from headrace.pytorch.group import GroupAdder
from headrace.pytorch.lockstep import Lockstep
from headrace.pytorch.schedule import Scheduler
from headrace.pytorch.shared import HostAdder
from headrace.role.rounds import Reduction

__all__ = ["open_lockstep", "require_supported"]

_INSTEAD = {
    torch.nn.parallel.DistributedDataParallel: "Give the model that it wraps",
    torch.nn.SyncBatchNorm: "Use BatchNorm, whose running statistics are averaged",
}
_COMMUNICATING = tuple(_INSTEAD)


def require_supported(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: object,
    reduction: str,
) -> None:
    """Refuse what cannot be reduced, with one worker as with many.

    Raises:
        ConfigError: A module communicates by itself, the optimizer evaluates the loss itself,
            the scheduler needs a metric, or `reduction` is unknown.
    """
    for name, module in model.named_modules():
        if isinstance(module, _COMMUNICATING):
            where = f"its part {name!r}" if name else "the model"
            msg = (
                f"ctx.data_parallel: {where} is a {type(module).__name__}, which communicates "
                "in its own forward or backward pass; a worker without rows makes none, and "
                f"the others would wait for it. {_INSTEAD[type(module)]}"
            )
            raise ConfigError(msg)
    if isinstance(optimizer, torch.optim.LBFGS):
        msg = (
            "ctx.data_parallel: LBFGS evaluates the loss several times in a step (closure), "
            "which cannot be done in common steps; use SGD, Adam or another one that steps "
            "without closure"
        )
        raise ConfigError(msg)
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        msg = (
            "ctx.data_parallel: ReduceLROnPlateau decides by a metric, which a worker without "
            "rows does not have; use a schedule by steps, or set the rate from a metric that "
            "you have reduced over all workers"
        )
        raise ConfigError(msg)
    if reduction not in get_args(Reduction):
        msg = f"ctx.data_parallel(loss_reduction={reduction!r}) must be 'mean' or 'sum'"
        raise ConfigError(msg)


def open_lockstep(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: Scheduler | None,
    *,
    reduction: Reduction,
    before_step: Callable[[], object] | None,
    idle_after_s: float,
    collective_timeout_s: float,
) -> Lockstep:
    """Spread the model of rank 0 and hook the optimizer. Every worker calls it.

    Raises:
        ConfigError: The workers' models or the states of their optimizers differ.
        CollectiveError: A peer ended, or did not come within the limit.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    require_parameters(parameters)
    peers = GroupAdder(parameters[0].device, collective_timeout_s=collective_timeout_s)
    state = _distinct([*model.parameters(), *parameters, *model.buffers()])
    elements = sum(tensor.numel() for tensor in state)
    if not peers.is_same_everywhere(len(state)) or not peers.is_same_everywhere(elements):
        msg = (
            f"ctx.data_parallel: the workers' models differ; this one has {len(state)} tensors "
            f"with {elements} elements. Build the same model and optimizer on every worker."
        )
        raise ConfigError(msg)
    held = sum(
        isinstance(value, torch.Tensor)
        for values in optimizer.state.values()
        for value in values.values()
    )
    if not peers.is_same_everywhere(held):
        msg = (
            f"ctx.data_parallel: the workers' optimizers differ; this one holds {held} tensors "
            "of state. Load its state on every worker, or on none: only the model of rank 0 is "
            "copied to the others."
        )
        raise ConfigError(msg)
    with torch.no_grad():
        peers.spread(state)
    adder = HostAdder(peers)
    vector = FlatGradients(
        parameters,
        model.buffers(),
        groups=len(optimizer.param_groups),
        zeros=adder.zeros,
    )
    return Lockstep(
        vector,
        optimizer,
        scheduler,
        adder,
        reduction=reduction,
        before_step=before_step,
        idle_after_s=idle_after_s,
    )


def _distinct(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    return list({id(tensor): tensor.detach() for tensor in tensors}.values())
