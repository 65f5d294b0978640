"""From a model and an optimizer to a worker's part in the common steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args

import keras

from headrace.config import TimeoutConfig
from headrace.errors import ConfigError, PlanError
from headrace.role import RoleLink
from headrace.role.rounds import Reduction
from headrace.role.star import StarSpec, open_star
from headrace.tensorflow.alone import AloneSteps
from headrace.tensorflow.cluster import TFCluster
from headrace.tensorflow.internals import let_steps_wait_for_their_batch
from headrace.tensorflow.lockstep import Lockstep

__all__ = ["open_lockstep"]


def open_lockstep(
    model: Any,
    optimizer: Any,
    cluster: TFCluster,
    link: RoleLink,
    *,
    reduction: Reduction,
    attempt: int,
    idle_after_s: float,
    timeouts: TimeoutConfig,
    check: Callable[[], object],
) -> Lockstep | AloneSteps:
    """Check the model; where there are several workers, meet them and hook the optimizer.

    Blocks until all have met, at most `timeouts.gather_timeout_s`.

    Raises:
        ConfigError: The model is not built, has no optimizer, or is another one than a peer's;
            or `reduction` is unknown.
        PlanError: The job has parameter servers.
        WaitTimeoutError: Not all workers came in time.
        CollectiveError: A peer ended, or did not come within the limit.
    """
    if cluster.servers:
        msg = (
            "ctx.data_parallel trains synchronously, without parameter servers, and this job "
            f"has ps={len(cluster.servers)}. Use ctx.parameter_servers(), or plan ps=0."
        )
        raise PlanError(msg)
    if reduction not in get_args(Reduction):
        msg = f"ctx.data_parallel(loss_reduction={reduction!r}) must be 'mean' or 'sum'"
        raise ConfigError(msg)
    if not getattr(model, "built", False):
        msg = (
            "ctx.data_parallel: the model is not built, so it has no variables yet. Give it an "
            "Input layer, or call model.build(input_shape)."
        )
        raise ConfigError(msg)
    optimizer = getattr(model, "optimizer", None) if optimizer is None else optimizer
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        msg = (
            f"ctx.data_parallel: optimizer={optimizer!r} is no Keras optimizer. Compile the "
            "model before, or give the optimizer of your loop."
        )
        raise ConfigError(msg)
    if cluster.group_size == 1:
        return AloneSteps(optimizer)
    if isinstance(model, keras.Model):
        model.jit_compile = False  # a step calls back into Python, which XLA cannot
        let_steps_wait_for_their_batch()
        model.train_function = None  # one made before has the optimizer's own apply in it
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    star = open_star(
        StarSpec(
            name=f"data_parallel/{attempt}",
            rank=cluster.rank,
            world_size=cluster.group_size,
            host=cluster.host,
            gather_timeout_s=timeouts.gather_timeout_s,
            collective_timeout_s=timeouts.collective_timeout_s,
            check=check,
        ),
        link,
    )
    try:
        return Lockstep(
            model,
            optimizer,
            star,
            reduction=reduction,
            idle_after_s=idle_after_s,
            step_timeout_s=timeouts.collective_timeout_s,
            check=check,
        )
    except BaseException:
        star.close()
        raise
