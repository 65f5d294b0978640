"""Plans a PyTorch job in Flink."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headrace._counts import require_count
from headrace.config import AMConfig, ExchangeConfig, RoleConfig, TimeoutConfig
from headrace.errors import PlanError
from headrace.pytorch.context import TorchContext
from headrace.pytorch.entry import TorchEntry
from headrace.pytorch.settings import TorchSettings

if TYPE_CHECKING:  # pyflink belongs to the program that plans, not to the worker processes
    from headrace.operator import Cluster, JobHandle

__all__ = ["TrainingPlan", "train"]

_ROLE = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """A planned job; nothing runs yet.

    Attributes:
        cluster: The roles as planned, to add further ones or to submit with other sinks.
        output: Rows that the workers emit (a Table, or a DataStream if the input is one), to
            give to further queries and sinks before `submit`; None without `output`.
    """

    cluster: Cluster
    output: Any

    def submit(self, statements: Any = None) -> JobHandle:
        """Submit the job, with every sink of its environment.

        Args:
            statements: A `StatementSet` of the same table environment whose INSERTs join the
                job.

        Returns:
            A handle of the running job.

        Raises:
            PlanError: It was submitted already.
        """
        return self.cluster.submit(statements)


def train(
    rows: Any,
    entry: Callable[[TorchContext], object],
    *,
    workers: int = 1,
    epochs: int = 1,
    output: Any = None,
    output_dir: str | Path | None = None,
    name: str = "pytorch",
    max_restarts: int = 3,
    checkpoint_dir: str | Path | None = None,
    environment: Mapping[str, str] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    idle_after_s: float = 0.1,
    exchange: ExchangeConfig | None = None,
    timeouts: TimeoutConfig | None = None,
) -> TrainingPlan:
    """Plan PyTorch workers as operators of a Flink job.

    In *stream mode* the workers get the rows of a table; in *batch mode* (`rows` is None) each
    reads its own files. In both, the workers of the job have met in a process group of
    `torch.distributed` when `entry` starts. Nothing runs before `submit`.

    Args:
        rows: A Table or DataStream, insert-only; or None.
        entry: The training function; it travels by cloudpickle, so module-level, nested and
            `__main__` functions all do.
        workers: How many.
        epochs: Passes over the rows where `ctx.batches` names none; more than 1 needs a
            bounded input.
        output: Columns that `ctx.emit` sends, name to `DataTypes`; None: the workers emit
            nothing.
        output_dir: Directory that `ctx.save` writes to, for every host at the same path; a
            relative one is taken from here. None: `ctx.save` is an error.
        name: Name of the job.
        max_restarts: Restarts of the group before the job fails, in batch mode. In stream mode
            Flink's restart strategy decides; unless you set one, there is none, since Flink's
            checkpoints do not hold the model yet.
        checkpoint_dir: Directory for `ctx.checkpoint_path` in batch mode.
        environment: Environment variables of the worker processes.
        device: "auto" takes a GPU where the process was assigned one.
        idle_after_s: How long a worker without rows holds up the steps of the others, in
            seconds.
        exchange: Size and pace of the memory queue.
        timeouts: Limits on every wait.

    Returns:
        The plan, with the emitted rows.

    Raises:
        ConfigError: A setting cannot work.
        PlanError: The job cannot be planned like this.

    Example:
        >>> job = headrace.pytorch.train(features, train, workers=2).submit()  # doctest: +SKIP
        >>> job.wait()  # doctest: +SKIP
    """
    from headrace.operator import Cluster, environment_of  # imports pyflink

    settings = TorchSettings(
        epochs=epochs,
        output_dir=None if output_dir is None else Path(output_dir).absolute(),
        device=device,
        idle_after_s=idle_after_s,
    )
    worker = RoleConfig(
        entry=TorchEntry(entry, settings),
        parallelism=require_count("workers", workers),
        environment=environment or {},
        exchange=exchange or ExchangeConfig(),
    )
    master = AMConfig(
        state_machine="pytorch",
        max_restarts=max_restarts,
        timeouts=timeouts or TimeoutConfig(),
    )
    cluster = Cluster(
        None if rows is None else environment_of(rows), name=name, checkpoint_dir=checkpoint_dir
    )
    cluster.add_am_role(master)
    emitted = cluster.add_role(_ROLE, worker, input=rows, output=output)
    if rows is not None:
        if settings.epochs > 1 and cluster.has_endless_input:
            msg = (
                f"epochs={epochs} needs an input that ends, but a source of `rows` is "
                "unbounded: the first pass would never be over. Use epochs=1, or a bounded one"
            )
            raise PlanError(msg)
        # A restart would go on behind the last checkpoint, which holds no model yet.
        cluster.set_flink_default("restart-strategy.type", "none")
    return TrainingPlan(cluster=cluster, output=emitted)
