"""Plans a PyTorch job in Flink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from headrace._counts import require_bounds
from headrace.config import AMConfig, ExchangeConfig, RoleConfig, TimeoutConfig
from headrace.operator.training import TrainingJob, TrainingPlan, export_dir, plan_training
from headrace.pytorch.context import TorchContext
from headrace.pytorch.entry import TorchEntry
from headrace.pytorch.settings import TorchSettings

__all__ = ["train", "training_job"]

_ROLE = "worker"


def train(
    rows: Any,
    entry: Callable[[TorchContext], object],
    *,
    workers: int | tuple[int, int] = 1,
    epochs: int = 1,
    held_out: Any = None,
    output: Any = None,
    output_dir: str | Path | None = None,
    export_to: str | Path | None = None,
    keep_exports: int = 3,
    name: str = "pytorch",
    max_restarts: int = 3,
    checkpoint_dir: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    idle_after_s: float = 0.1,
    exchange: ExchangeConfig | None = None,
    timeouts: TimeoutConfig | None = None,
    spare_after_s: float | None = 10.0,
) -> TrainingPlan:
    """Plan PyTorch workers as operators of a Flink job.

    In *stream mode* the workers get the rows of a table; in *batch mode* (`rows` is None) each
    reads its own files. In both, the workers of the job have met in a process group of
    `torch.distributed` when `entry` starts. Nothing runs before `submit`.

    Args:
        rows: A Table or DataStream, insert-only; or None.
        entry: The training function; it travels by cloudpickle, so module-level, nested and
            `__main__` functions all do.
        workers: How many; or the fewest and the most, where Flink's adaptive scheduler
            (`jobmanager.scheduler: adaptive`) is to run as many as there are slots for. Any
            other runs the most. Two numbers go with one pass and without `held_out` only.
        epochs: Passes over the rows where `ctx.batches` names none; more than 1 needs a
            bounded input.
        held_out: A table with the columns of `rows`, bounded like it, that is not trained on:
            each worker has a part of its rows in `ctx.held_out` after its first pass. Both are
            Tables.
        output: Columns that `ctx.emit` sends, name to `DataTypes`; None: the workers emit
            nothing.
        output_dir: Directory that `ctx.save` writes to, for every host at the same path; a
            relative one is taken from here. None: `ctx.save` is an error.
        export_to: Directory for a model to serve of each checkpoint of Flink's that completes,
            with a link `latest...` to the newest, which `predict(..., reload="path changes")`
            follows; likewise, and for this job alone. What `ctx.checkpointed` names is written;
            see `ctx.exported`. None: none is.
        keep_exports: How many of them stay, at least 1.
        name: Name of the job.
        max_restarts: Restarts of the group before the job fails, in batch mode. In stream mode
            Flink's restart strategy decides; unless you set one, a job with checkpoints
            restarts as often, counted anew after 15 minutes without a failure.
        checkpoint_dir: Directory for `ctx.checkpoint_path` in batch mode; see `Cluster`.
        environment: Environment variables of the worker processes.
        device: "auto" takes a GPU where the process was assigned one; "cuda" must have one;
            "cpu" takes none.
        idle_after_s: How long a worker without rows holds up the steps of the others, in
            seconds, at least 0.
        exchange: Size and pace of the memory queue.
        timeouts: Limits on every wait, in seconds.
        spare_after_s: In stream mode with Flink's checkpoints, when a spare for each process is
            started, in seconds after the process; see `RoleConfig`. None: never.

    Returns:
        The plan, with the emitted rows.

    Raises:
        ConfigError: A setting cannot work.
        PlanError: The job cannot be planned like this.

    Example:
        >>> job = headrace.pytorch.train(features, train, workers=2).submit()  # doctest: +SKIP
        >>> job.wait()  # doctest: +SKIP
    """
    job = training_job(
        entry,
        workers=workers,
        epochs=epochs,
        has_held_out=held_out is not None,
        output_dir=output_dir,
        export_to=export_to,
        keep_exports=keep_exports,
        name=name,
        max_restarts=max_restarts,
        checkpoint_dir=checkpoint_dir,
        environment=environment,
        device=device,
        idle_after_s=idle_after_s,
        exchange=exchange,
        timeouts=timeouts,
        spare_after_s=spare_after_s,
    )
    return plan_training(rows, job, output=output, held_out=held_out)


def training_job(
    entry: Callable[[TorchContext], object],
    *,
    workers: int | tuple[int, int] = 1,
    epochs: int = 1,
    output_dir: str | Path | None = None,
    export_to: str | Path | None = None,
    keep_exports: int = 3,
    name: str = "pytorch",
    max_restarts: int = 3,
    checkpoint_dir: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    idle_after_s: float = 0.1,
    exchange: ExchangeConfig | None = None,
    timeouts: TimeoutConfig | None = None,
    spare_after_s: float | None = 10.0,
    has_held_out: bool = False,
) -> TrainingJob:
    """Return what `train` plans, without its rows; arguments and errors are the same."""
    settings = TorchSettings(
        epochs=epochs,
        output_dir=None if output_dir is None else Path(output_dir).absolute(),
        export_to=export_dir(export_to),
        keep_exports=keep_exports,
        device=device,
        has_held_out=has_held_out,
        idle_after_s=idle_after_s,
    )
    least, most = require_bounds("workers", workers)
    worker = RoleConfig(
        entry=TorchEntry(entry, settings),
        parallelism=most,
        min_parallelism=least,
        environment=environment or {},
        gpu="none" if device == "cpu" else "auto",
        exchange=exchange or ExchangeConfig(),
        spare_after_s=spare_after_s,
    )
    master = AMConfig(
        state_machine="pytorch",
        max_restarts=max_restarts,
        timeouts=timeouts or TimeoutConfig(),
    )
    return TrainingJob(
        name=name,
        master=master,
        roles={_ROLE: worker},
        fed_role=_ROLE,
        checkpoint_dir=checkpoint_dir,
        epochs=settings.epochs,
        has_exports=settings.export_to is not None,
    )
