"""Runs a training function as a Flink job would, without Flink."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from headrace._counts import require_count
from headrace.config import TimeoutConfig
from headrace.errors import ConfigError, UsageError
from headrace.framework import ProcessSpec
from headrace.framework.local import run_local
from headrace.role import RoleEntry
from headrace.testing.faults import Fault, Kill
from headrace.testing.split import Split, split_table
from headrace.testing.worker import FedEntry, WorkerResult, read_result

__all__ = ["RunResult", "run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run has brought.

    Attributes:
        workers: What each worker did, by its index.
        saved: Files in the output directory, sorted.
    """

    workers: tuple[WorkerResult, ...]
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
    train: Callable[[Any], object] | RoleEntry,
    table: pa.Table | None = None,
    *,
    workers: int = 1,
    epochs: int = 1,
    output_schema: pa.Schema | None = None,
    output_dir: Path | None = None,
    split: Split | None = None,
    batch_rows: int = 1024,
    faults: Sequence[Fault] = (),
    timeouts: TimeoutConfig | None = None,
    timeout_s: float | None = None,
) -> RunResult:
    """Run an entry function on the rows of a table, and return what it did.

    One worker runs in the calling process, so a debugger works in it and its exceptions arrive
    as they are. Several run in processes of their own, with a process group as
    in a job. Blocks until all have ended.

    Args:
        train: A PyTorch entry function, or a `RoleEntry` such as `TorchEntry(train, settings)`.
        table: The input; None: no input, the function reads its own files.
        workers: How many, at least 1.
        epochs: Passes over the input, for a PyTorch function that names none.
        output_schema: Columns that the function may emit; None: none.
        output_dir: Where `ctx.save` of a PyTorch function writes.
        split: Rows of each worker: fractions of the table, or one table each. None: batches of
            `batch_rows` rows are dealt in turn.
        batch_rows: Most rows that arrive at once.
        faults: What goes wrong, see `headrace.testing.Pause` and `headrace.testing.Kill`.
        timeouts: Limits on the waits inside.
        timeout_s: Limit on the whole run of several workers, in seconds; None: none.

    Raises:
        WaitTimeoutError: Several workers have not ended within `timeout_s`; they are killed.
        ConfigError: The arguments do not fit each other.
        UserCodeError: A worker of several failed; the first failure, with its traceback.
    """
    workers = require_count("workers", workers)
    epochs = require_count("epochs", epochs)
    batch_rows = require_count("batch_rows", batch_rows)
    _require_faults_fit(faults, workers)
    entry = train if isinstance(train, RoleEntry) else _torch_entry(train, epochs, output_dir)
    tables = None
    if table is not None:
        tables = split_table(table, workers, split=split, batch_rows=batch_rows)
    with tempfile.TemporaryDirectory(prefix="headrace-testing-") as name:
        result_dir = Path(name)
        fed = FedEntry(
            entry=entry,
            tables=tables,
            output_schema=output_schema,
            batch_rows=batch_rows,
            faults=tuple(faults),
            result_dir=result_dir,
        )
        limits = timeouts or TimeoutConfig()
        if workers == 1:
            _run_here(fed, limits)
        else:
            run_local(fed, parallelism=workers, timeouts=limits, timeout_s=timeout_s)
        results = tuple(read_result(result_dir, index) for index in range(workers))
    saved = [] if output_dir is None else [p for p in output_dir.rglob("*") if p.is_file()]
    return RunResult(workers=results, saved=tuple(sorted(saved)))


def _torch_entry(
    train: Callable[[Any], object], epochs: int, output_dir: Path | None
) -> RoleEntry:
    from headrace.pytorch import TorchEntry, TorchSettings  # needs torch

    return TorchEntry(train, TorchSettings(epochs=epochs, output_dir=output_dir))


def _run_here(fed: FedEntry, timeouts: TimeoutConfig) -> None:
    work_dir = fed.result_dir / "work"
    work_dir.mkdir()
    spec = ProcessSpec(
        job_name="testing",
        role="worker",
        index=0,
        parallelism=1,
        attempt=1,
        cluster={"worker": ("127.0.0.1",)},
        host="127.0.0.1",
        work_dir=str(work_dir),
        payload_path="",
        timeouts=timeouts,
    )
    fed(spec, _NoNode())


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

    def stop_job(self, reason: str) -> None:
        """There is nobody else to stop."""


def _require_faults_fit(faults: Sequence[Fault], workers: int) -> None:
    for fault in faults:
        if fault.worker >= workers:
            msg = f"{fault} is for a worker that is not there: workers={workers}"
            raise ConfigError(msg)
        if workers == 1 and isinstance(fault, Kill):
            msg = f"{fault} would end the calling process; it needs workers of 2 or more"
            raise ConfigError(msg)
