"""Plans a TensorFlow job in Flink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from headrace._counts import require_bounds, require_count
from headrace.config import AMConfig, ExchangeConfig, GpuUse, RoleConfig, TimeoutConfig
from headrace.errors import ConfigError, PlanError
from headrace.operator.training import TrainingJob, TrainingPlan, export_dir, plan_training
from headrace.tensorflow.cluster import CHIEF, EVALUATOR, PS, TENSORBOARD, WORKER
from headrace.tensorflow.context import TFContext
from headrace.tensorflow.entry import TFEntry
from headrace.tensorflow.ps_server import server_role
from headrace.tensorflow.settings import TFSettings

__all__ = ["train", "training_job"]

_DEFAULTS = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}


def train(
    rows: Any,
    entry: Callable[[TFContext], object],
    *,
    workers: int | tuple[int, int] = 1,
    ps: int = 0,
    chief: bool | Callable[[TFContext], object] = False,
    evaluator: bool | Callable[[TFContext], object] = False,
    tensorboard: bool = False,
    epochs: int = 1,
    held_out: Any = None,
    output: Any = None,
    output_dir: str | Path | None = None,
    export_to: str | Path | None = None,
    keep_exports: int = 3,
    log_dir: str | Path | None = None,
    name: str = "tensorflow",
    max_restarts: int = 3,
    checkpoint_dir: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    idle_after_s: float = 0.1,
    exchange: ExchangeConfig | None = None,
    timeouts: TimeoutConfig | None = None,
    spare_after_s: float | None = 10.0,
) -> TrainingPlan:
    """Plan TensorFlow processes as operators of a Flink job.

    In *stream mode* the workers get the rows of a table, and the job ends when all of them have
    used up their input; in *batch mode* (`rows` is None) they read their own files, and the job
    ends when the chief has, or worker 0 where there is none. Parameter servers, evaluator and
    TensorBoard are stopped then. Nothing runs before `submit`.

    Args:
        rows: A Table or DataStream, insert-only; or None.
        entry: The function of every worker (and of chief and evaluator, where those are True:
            ``ctx.role`` tells them apart); it travels by cloudpickle, so module-level, nested
            and `__main__` functions all do.
        workers: How many; or the fewest and the most, as for `headrace.pytorch.train`.
        ps: Parameter servers, for `ctx.parameter_servers` or TensorFlow's own
            `ParameterServerStrategy`; 0 for one worker, or synchronous training.
        chief: Whether there is a chief, or its function. It gets no rows.
        evaluator: Whether there is an evaluator, or its function. It gets no rows; see
            `ctx.follow_checkpoints`.
        tensorboard: Whether TensorBoard runs beside, over `log_dir`; `JobHandle.status()` has
            its address.
        epochs: Passes over the rows; more than 1 needs a bounded input.
        held_out: A table with the columns of `rows`, bounded like it, that is not trained on:
            each worker has a part of its rows in `ctx.held_out` after its first pass. Both are
            Tables.
        output: Columns that `ctx.emit` of the workers sends, name to `DataTypes`; None: they
            emit nothing.
        output_dir: Directory that `ctx.save` writes to, for every host at the same path; a
            relative one is taken from here. None: `ctx.save` is an error.
        export_to: Directory for a model to serve of each checkpoint of Flink's that completes,
            with a link `latest...` to the newest, which `predict(..., reload="path changes")`
            follows; likewise, and for this job alone. What `ctx.checkpointed` names is written;
            see `ctx.exported`. None: none is.
        keep_exports: How many of them stay, at least 1.
        log_dir: Directory for the scalars of `ctx.report`, likewise; each job gets a directory
            of its own in it. None: "logs" in `output_dir`, if there is one.
        name: Name of the job.
        max_restarts: Restarts in batch mode before the job fails. In stream mode Flink's
            restart strategy decides; unless you set one, a job with checkpoints restarts as
            often, counted anew after 15 minutes without a failure.
        checkpoint_dir: Directory for `ctx.checkpoint_path`, which an evaluator follows; see
            `Cluster`.
        environment: Environment variables of the processes.
        idle_after_s: In synchronous training, how long a worker without rows holds up the
            steps of the others, in seconds, at least 0.
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
        >>> plan = headrace.tensorflow.train(features, train, workers=2, ps=1)  # doctest: +SKIP
        >>> plan.submit().wait()  # doctest: +SKIP
    """
    job = training_job(
        entry,
        is_stream=rows is not None,
        workers=workers,
        ps=ps,
        chief=chief,
        evaluator=evaluator,
        tensorboard=tensorboard,
        epochs=epochs,
        has_held_out=held_out is not None,
        output_dir=output_dir,
        export_to=export_to,
        keep_exports=keep_exports,
        log_dir=log_dir,
        name=name,
        max_restarts=max_restarts,
        checkpoint_dir=checkpoint_dir,
        environment=environment,
        idle_after_s=idle_after_s,
        exchange=exchange,
        timeouts=timeouts,
        spare_after_s=spare_after_s,
    )
    return plan_training(rows, job, output=output, held_out=held_out)


def training_job(
    entry: Callable[[TFContext], object],
    *,
    is_stream: bool,
    workers: int | tuple[int, int] = 1,
    ps: int = 0,
    chief: bool | Callable[[TFContext], object] = False,
    evaluator: bool | Callable[[TFContext], object] = False,
    tensorboard: bool = False,
    epochs: int = 1,
    output_dir: str | Path | None = None,
    export_to: str | Path | None = None,
    keep_exports: int = 3,
    log_dir: str | Path | None = None,
    name: str = "tensorflow",
    max_restarts: int = 3,
    checkpoint_dir: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    idle_after_s: float = 0.1,
    exchange: ExchangeConfig | None = None,
    timeouts: TimeoutConfig | None = None,
    spare_after_s: float | None = 10.0,
    has_held_out: bool = False,
) -> TrainingJob:
    """Return what `train` plans, without its rows; arguments and errors are the same.

    `is_stream` says whether the workers will get rows.
    """
    ps = require_count("ps", ps, least=0)
    least, most = require_bounds("workers", workers)
    output_path = None if output_dir is None else Path(output_dir).absolute()
    logs = _log_dir(log_dir, output_path)
    settings = TFSettings(
        epochs=epochs,
        output_dir=output_path,
        export_to=export_dir(export_to),
        keep_exports=keep_exports,
        log_dir=None if logs is None else logs / _run_name(name),
        has_held_out=has_held_out,
        idle_after_s=idle_after_s,
        is_stream=is_stream,
        is_scaled_to_one=least == 1 < most,
    )
    if is_stream and chief and not ps:
        msg = (
            "chief=True needs parameter servers in stream mode: it gets no rows, and would "
            "have no part in a synchronous training. Worker 0 leads where there is no "
            "chief (ctx.is_chief)."
        )
        raise PlanError(msg)
    if settings.export_to is not None and ps:
        msg = (
            f"export_to={str(settings.export_to)!r} with ps={ps}: models whose variables are "
            "on parameter servers are not written to be served. Use ps=0, or save with "
            "ctx.checkpoint_path"
        )
        raise PlanError(msg)
    variables = {**_DEFAULTS, **(environment or {})}

    def role(
        function: object,
        count: tuple[int, int] = (1, 1),
        gpu: GpuUse = "auto",
        spare: float | None = spare_after_s,
    ) -> RoleConfig:
        own = entry if function is True else function
        assert callable(own)
        return RoleConfig(
            entry=TFEntry(own, settings),
            parallelism=count[1],
            min_parallelism=count[0],
            environment=variables,
            has_port=True,
            gpu=gpu,
            exchange=exchange or ExchangeConfig(),
            spare_after_s=spare,
        )

    roles: dict[str, RoleConfig] = {}
    if ps:
        roles[PS] = replace(server_role(ps, variables), spare_after_s=spare_after_s)
    if chief:
        roles[CHIEF] = role(chief)
    roles[WORKER] = role(entry, (least, most))
    if evaluator:
        # GPUs are for those who train, and nobody waits for an evaluator.
        roles[EVALUATOR] = role(evaluator, gpu="none", spare=None)
    if tensorboard:
        roles[TENSORBOARD] = _tensorboard(logs)
    return TrainingJob(
        name=name,
        master=AMConfig(
            state_machine="tensorflow",
            max_restarts=max_restarts,
            timeouts=timeouts or TimeoutConfig(),
        ),
        roles=roles,
        fed_role=WORKER,
        checkpoint_dir=checkpoint_dir,
        epochs=settings.epochs,
        has_exports=settings.export_to is not None,
    )


def _log_dir(given: str | Path | None, output_dir: Path | None) -> Path | None:
    if given is not None:
        return Path(given).absolute()
    return None if output_dir is None else output_dir / "logs"


def _run_name(name: str) -> str:
    return f"{name}-{datetime.now(timezone.utc):%Y%m%d-%H%M%S}"


def _tensorboard(logs: Path | None) -> RoleConfig:
    if logs is None:
        msg = "tensorboard=True needs something to show: give log_dir or output_dir"
        raise ConfigError(msg)
    return RoleConfig(runner="tensorboard", options={"log_dir": str(logs)}, has_port=True)
