"""Plans a training as a Flink job, for every framework.

Imports pyflink only when it plans: the framework layers, which worker processes import too,
take `TrainingJob` and `TrainingPlan` from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.config import AMConfig, RoleConfig
from headrace.errors import PlanError

if TYPE_CHECKING:
    from headrace.operator.cluster import Cluster
    from headrace.operator.handle import JobHandle

__all__ = ["TrainingJob", "TrainingPlan", "export_dir", "plan_training"]


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
            PlanError: It was submitted already, or `export_to` is set and Flink's checkpoints
                are not.
            Py4JJavaError, TableException: As `Cluster.submit`.
        """
        return self.cluster.submit(statements)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingJob:
    """What a training runs, wherever its rows come from; nothing here knows of Flink.

    Attributes:
        name: Name of the job.
        master: The application master.
        roles: What to run, by the role's name, in the order in which they are planned.
        fed_role: Name of the role that gets rows and emits some.
        checkpoint_dir: Directory for `ctx.checkpoint_path` in batch mode.
        epochs: Passes over the rows; more than 1 needs a bounded input.
        has_exports: Whether `export_to` is set, which needs rows and Flink's checkpoints.
    """

    name: str
    master: AMConfig
    roles: Mapping[str, RoleConfig]
    fed_role: str = "worker"
    checkpoint_dir: str | Path | None = None
    epochs: int = 1
    has_exports: bool = False


def export_dir(given: str | Path | None) -> Path | None:
    """Return `export_to` as an absolute path.

    Raises:
        PlanError: It is a URI.
    """
    if given is None:
        return None
    if "://" in str(given):
        msg = (
            f"export_to={str(given)!r} must be a directory that workers reach by a path, such "
            "as a mounted one: a version is seen as a whole because a link to it is replaced "
            "in one step, and object stores and HDFS have no such links"
        )
        raise PlanError(msg)
    return Path(given).absolute()


def plan_training(
    rows: Any, job: TrainingJob, *, output: Any = None, held_out: Any = None
) -> TrainingPlan:
    """Plan one job with a master and all roles of a training.

    In *stream mode* one role gets rows from Flink; in *batch mode* (`rows` is None) none does.

    Args:
        rows: A Table or DataStream, insert-only, for `job.fed_role`; None.
        job: What to run.
        output: Columns that `job.fed_role` emits, name to `DataTypes`; None: it emits nothing.
        held_out: A table of rows for `ctx.held_out`, with the columns of `rows`; None: none.

    Returns:
        The plan, with the emitted rows.

    Raises:
        PlanError: The job cannot be planned like this.
    """
    from headrace.operator.cluster import Cluster
    from headrace.operator.streams import environment_of

    is_fed = rows is not None or output is not None
    if is_fed and job.fed_role not in job.roles:
        msg = (
            f"fed_role={job.fed_role!r} must be one of the roles {[*job.roles]}: rows go to it"
        )
        raise PlanError(msg)
    if rows is not None:
        _require_one_number(job, has_held_out=held_out is not None)
    if held_out is not None:
        from headrace.operator.held_out import mark_held_out

        rows = mark_held_out(rows, held_out)
    if job.has_exports and rows is None:
        msg = (
            "export_to= writes a model for each checkpoint of Flink's, which hold the state of "
            "workers that get rows. Here each reads its own files: save with ctx.save, or with "
            "ctx.checkpoint_path"
        )
        raise PlanError(msg)
    cluster = Cluster(
        None if rows is None else environment_of(rows),
        name=job.name,
        checkpoint_dir=job.checkpoint_dir,
    )
    if job.has_exports:
        cluster.require_checkpoints("export_to= writes a model for each checkpoint of Flink's")
    try:
        emitted = _add_roles(cluster, job, rows, output)
        if rows is not None and job.epochs > 1:
            where = "`rows`" if held_out is None else "`rows` or `held_out`"
            _require_end(cluster, job.epochs, where)
    except PlanError:
        cluster.withdraw()  # lest what is refused is part of the environment's next job
        raise
    return TrainingPlan(cluster=cluster, output=emitted)


def _require_one_number(job: TrainingJob, *, has_held_out: bool) -> None:
    """Refuse what a change of the number of processes would end: rows that each keeps."""
    role = job.roles[job.fed_role]
    least = role.min_parallelism or role.parallelism
    why = [f"epochs={job.epochs}"] * (job.epochs > 1) + ["held_out"] * has_held_out
    if least < role.parallelism and why:
        number = f"{job.fed_role}s=({least}, {role.parallelism})"
        msg = (
            f"{number} with {' and '.join(why)}: each process keeps rows of its own for later, "
            "which go to no other one when Flink's scheduler changes the number of processes. "
            f"Plan one number, for example {job.fed_role}s={role.parallelism}, or one pass "
            "without held-out rows"
        )
        raise PlanError(msg)


def _add_roles(cluster: Cluster, job: TrainingJob, rows: Any, output: Any) -> Any:
    """Add master and roles; return what the role emits that gets the rows."""
    cluster.add_am_role(job.master)
    emitted = None
    for role, config in job.roles.items():
        if role == job.fed_role:
            emitted = cluster.add_role(role, config, input=rows, output=output)
        else:
            cluster.add_role(role, config)
    return emitted


def _require_end(cluster: Cluster, epochs: int, where: str) -> None:
    if cluster.has_endless_input:
        msg = (
            f"epochs={epochs} needs an input that ends, but a source of {where} is "
            "unbounded: the first pass would never be over. Use epochs=1, or a bounded one"
        )
        raise PlanError(msg)
