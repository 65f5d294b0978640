"""Runs an entry function as a Flink job would, without Flink."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from headrace._counts import require_count
from headrace.config import RoleConfig, TimeoutConfig
from headrace.errors import ConfigError, UsageError
from headrace.framework.local import run_local
from headrace.framework.local_role import LocalRole, build_local_specs
from headrace.framework.node.port import ReservedPort
from headrace.role import RoleEntry
from headrace.testing.entries import Framework, build_entry, build_servers
from headrace.testing.faults import Fault, Kill
from headrace.testing.split import Split, split_table
from headrace.testing.worker import FedEntry, WorkerResult, read_result

__all__ = ["RunResult", "run"]


_WORKER = "worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run has brought.

    Attributes:
        workers: What each worker did, by its index.
        others: The same for each process of the other roles, by the role's name.
        saved: Files in the output directory, sorted.
    """

    workers: tuple[WorkerResult, ...]
    others: Mapping[str, tuple[WorkerResult, ...]] = field(default_factory=dict)
    saved: tuple[Path, ...] = ()

    @property
    def emitted(self) -> pa.Table | None:
        """Rows that the workers emitted, worker by worker; None if the role has no output."""
        tables = [each.emitted for each in self.workers if each.emitted is not None]
        return pa.concat_tables(tables) if tables else None

    @property
    def reports(self) -> tuple[Mapping[str, float], ...]:
        """The latest reported values of each worker."""
        return tuple(each.report for each in self.workers)

    @property
    def rows_in(self) -> tuple[int, ...]:
        """Rows of the input that each worker was given; later epochs do not count."""
        return tuple(each.rows_in for each in self.workers)


def run(
    entry: Callable[[Any], object] | RoleEntry,
    table: pa.Table | None = None,
    *,
    framework: Framework | None = None,
    workers: int = 1,
    ps: int = 0,
    has_port: bool = False,
    others: Mapping[str, RoleConfig] | None = None,
    deciding: Collection[str] = (_WORKER,),
    epochs: int = 1,
    output_schema: pa.Schema | None = None,
    output_dir: Path | None = None,
    checkpoint_dir: Path | None = None,
    split: Split | None = None,
    batch_rows: int = 1024,
    faults: Sequence[Fault] = (),
    timeouts: TimeoutConfig | None = None,
    timeout_s: float | None = None,
) -> RunResult:
    """Run an entry function on the rows of a table, and return what it did.

    One worker alone runs in the calling process, so a debugger works in it and its exceptions
    arrive as they are. Several, and those of other roles, run in processes of their own, which
    meet each other as in a job. Blocks until all have ended.

    Args:
        entry: What the workers run: a function, or a `RoleEntry` such as
            `TorchEntry(train, settings)`.
        table: The input of the workers; None: no input, they read their own files.
        framework: Whose context a plain function gets: "pytorch" for that of
            `headrace.pytorch.train`, "tensorflow" for that of `headrace.tensorflow.train`; None
            for that of `Cluster.add_role`.
        workers: How many, at least 1.
        ps: Parameter servers, for "tensorflow" only.
        has_port: Whether each worker has a TCP port, as in `RoleConfig.has_port`; with
            "tensorflow" each has one anyway.
        others: Other roles by name, such as parameter servers; they get no rows. What
            `RoleConfig` says of runner, args and exchange has no meaning here.
        deciding: Roles whose end is the end of the run: when all their processes have ended,
            those of the rest are stopped, however far they are.
        epochs: Passes over the input, for a function of a framework that names none; at least
            1.
        output_schema: Columns that the workers may emit; None: none.
        output_dir: Where `ctx.save` of a function of a framework writes.
        checkpoint_dir: Directory for `ctx.checkpoint_path`; None: there is none.
        split: Rows of each worker: fractions of the table, or one table each. None: batches of
            `batch_rows` rows are dealt in turn.
        batch_rows: Most rows that arrive at once, at least 1.
        faults: What goes wrong, see `headrace.testing.Pause` and `headrace.testing.Kill`.
        timeouts: Limits on the waits inside, in seconds.
        timeout_s: Limit on the whole run of several processes, in seconds; None: none.

    Returns:
        What each process did.

    Raises:
        WaitTimeoutError: Several processes have not ended within `timeout_s`; they are killed.
        ConfigError: The arguments do not fit each other.
        PlanError: The function of one of several processes cannot be pickled.
        UserCodeError: A process of several failed; the first failure, with its traceback. What
            one worker alone raises comes as it is.

    Source: docs/adr/0033.

    Example:
        >>> run(train, table, framework="pytorch", workers=2)  # doctest: +SKIP
    """
    workers = require_count("workers", workers)
    epochs = require_count("epochs", epochs)
    batch_rows = require_count("batch_rows", batch_rows)
    others = {**(others or {}), **build_servers(framework, ps, others or {})}
    has_port = has_port or framework == "tensorflow"
    _require_roles_fit(others, deciding)
    is_alone = workers == 1 and not others
    _require_faults_fit(faults, workers, is_alone=is_alone)
    role_entry = build_entry(entry, framework, epochs=epochs, output_dir=output_dir)
    tables = None
    if table is not None:
        tables = split_table(table, workers, split=split, batch_rows=batch_rows)
    with tempfile.TemporaryDirectory(prefix="headrace-testing-") as name:
        result_dir = Path(name)
        fed = FedEntry(
            entry=role_entry,
            result_dir=result_dir,
            tables=tables,
            output_schema=output_schema,
            batch_rows=batch_rows,
            faults=tuple(faults),
        )
        limits = timeouts or TimeoutConfig()
        place = None if checkpoint_dir is None else str(checkpoint_dir)
        if is_alone:
            _run_here(fed, limits, place, has_port=has_port)
        else:
            roles = {
                role: _local_role(role, config, result_dir, deciding)
                for role, config in others.items()
            }
            roles[_WORKER] = LocalRole(
                entry=fed,
                parallelism=workers,
                is_deciding=_WORKER in deciding,
                has_port=has_port,
            )
            run_local(roles, timeouts=limits, checkpoint_dir=place, timeout_s=timeout_s)
        results = {
            role: tuple(read_result(result_dir, f"{role}-{index}") for index in range(count))
            for role, count in _counts(workers, others).items()
        }
    saved = [] if output_dir is None else [p for p in output_dir.rglob("*") if p.is_file()]
    return RunResult(workers=results.pop(_WORKER), others=results, saved=tuple(sorted(saved)))


def _counts(workers: int, others: Mapping[str, RoleConfig]) -> dict[str, int]:
    return {_WORKER: workers, **{role: each.parallelism for role, each in others.items()}}


def _local_role(
    name: str, config: RoleConfig, result_dir: Path, deciding: Collection[str]
) -> LocalRole:
    assert callable(config.entry)
    return LocalRole(
        entry=FedEntry(entry=build_entry(config.entry, None), result_dir=result_dir),
        parallelism=config.parallelism,
        is_deciding=name in deciding,
        has_port=config.has_port,
        options=config.options,
        environment=config.environment,
    )


def _run_here(
    fed: FedEntry, timeouts: TimeoutConfig, checkpoint_dir: str | None, *, has_port: bool
) -> None:
    work_dir = fed.result_dir / "work"
    work_dir.mkdir()
    with contextlib.ExitStack() as opened:
        ports = {}
        if has_port:
            port = ReservedPort()
            opened.callback(port.close)
            ports[_WORKER] = (port.number,)
        (spec,) = build_local_specs(
            {_WORKER: LocalRole(entry=fed)},
            ports=ports,
            attempt=1,
            checkpoint_dir=checkpoint_dir,
            timeouts=timeouts,
        )
        fed(msgspec.structs.replace(spec, work_dir=str(work_dir)), _NoNode())


class _NoNode:
    """The line to a node that is not there: one worker alone needs none."""

    def __init__(self) -> None:
        self._values: dict[str, str] = {}

    def report(self, values: Mapping[str, float], rows_in: int, rows_out: int) -> None:
        """Drop it."""

    def publish(self, key: str, value: str) -> None:
        """Keep it for `lookup`."""
        self._values[key] = value

    def lookup(self, key: str, timeout_s: float) -> str:  # noqa: ARG002 - the seam's
        """Return what was published; nobody else will publish it."""
        if key not in self._values:
            msg = f"lookup({key!r}): with one worker nobody else can publish it"
            raise UsageError(msg)
        return self._values[key]

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        """There is nobody else to stop."""


def _require_roles_fit(others: Mapping[str, RoleConfig], deciding: Collection[str]) -> None:
    for role, config in others.items():
        if role == _WORKER:
            msg = f"others={{{role!r}: ...}} is the role that `entry` and `workers` describe"
            raise ConfigError(msg)
        if not callable(config.entry):
            msg = f"others={{{role!r}: ...}} is the script {config.entry!r}; give a function"
            raise ConfigError(msg)
    known = {_WORKER, *others}
    if not deciding or not set(deciding) <= known:
        msg = f"deciding={sorted(deciding)} must name some of the roles {sorted(known)}"
        raise ConfigError(msg)


def _require_faults_fit(faults: Sequence[Fault], workers: int, *, is_alone: bool) -> None:
    for fault in faults:
        if fault.worker >= workers:
            msg = f"{fault} is for a worker that is not there: workers={workers}"
            raise ConfigError(msg)
        if is_alone and isinstance(fault, Kill):
            msg = f"{fault} would end the calling process; it needs workers of 2 or more"
            raise ConfigError(msg)
