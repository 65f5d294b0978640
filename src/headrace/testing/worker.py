"""One process of a test run: feeds an entry from a table and notes what comes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from headrace.framework.process import ProcessSpec
from headrace.role import RoleEntry, RoleLink, replacing
from headrace.testing.faults import Fault
from headrace.testing.feed import TableFeed

__all__ = ["FedEntry", "WorkerResult", "read_result"]


class _Notes(msgspec.Struct):
    rows_in: int = 0
    rows_out: int = 0
    history: list[dict[str, float]] = []


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerResult:
    """What one process did.

    Attributes:
        rows_in: Rows of the input that it was given; later epochs do not count.
        history: Values of each `ctx.report` call, in order.
        emitted: Rows that it emitted; None if the role has no output.
    """

    rows_in: int
    history: tuple[Mapping[str, float], ...] = ()
    emitted: pa.Table | None = None

    @property
    def report(self) -> dict[str, float]:
        """The latest value of each name that was reported."""
        latest: dict[str, float] = {}
        for values in self.history:
            latest.update(values)
        return latest


@dataclass(kw_only=True)
class FedEntry:
    """Calls a `RoleEntry` with a context over a table; travels to the process by cloudpickle.

    Each process writes its notes and what it emitted to `result_dir` when its entry has ended.

    Attributes:
        entry: What to run.
        result_dir: Existing directory of this run.
        tables: Input of each process of the role; None: no input.
        output_schema: Columns that may be emitted; None: none may.
        batch_rows: Rows of one received batch.
        faults: Faults of all processes of the role.
    """

    entry: RoleEntry
    result_dir: Path
    tables: list[pa.Table] | None = None
    output_schema: pa.Schema | None = None
    batch_rows: int = 1024
    faults: tuple[Fault, ...] = ()

    def __call__(self, spec: ProcessSpec, link: RoleLink) -> None:
        """Run one process to its end. Blocks."""
        feed = self._feed(spec.index)
        recorder = _Recorder(link)
        try:
            self.entry(spec, recorder, feed=feed, on_report=recorder.note)
            self._write(spec.node, recorder, feed)
        except BaseException:  # a stop in the midst of writing too: there is one per process
            self._write(spec.node, recorder, feed)
            raise

    def _feed(self, index: int) -> TableFeed | None:
        if self.tables is None and self.output_schema is None:
            return None
        return TableFeed(
            None if self.tables is None else self.tables[index],
            output_schema=self.output_schema,
            batch_rows=self.batch_rows,
            faults=[fault for fault in self.faults if fault.worker == index],
        )

    def _write(self, node: str, recorder: _Recorder, feed: TableFeed | None) -> None:
        notes = _Notes(recorder.rows_in, recorder.rows_out, recorder.history)
        if feed is not None and feed.output_schema is not None:
            with (
                replacing(_rows_path(self.result_dir, node)) as file,
                pa.ipc.new_file(file, feed.output_schema) as writer,
            ):
                writer.write_table(feed.output)
        with replacing(_notes_path(self.result_dir, node)) as file:  # last: all is there
            file.write(msgspec.json.encode(notes))


@dataclass
class _Recorder:
    """Passes everything on to the node, and keeps what was reported."""

    link: RoleLink
    rows_in: int = 0
    rows_out: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    def note(self, values: Mapping[str, Any]) -> None:
        if values:
            self.history.append({name: float(value) for name, value in values.items()})

    def report(self, values: Mapping[str, float], rows_in: int, rows_out: int) -> None:
        self.rows_in, self.rows_out = rows_in, rows_out
        self.link.report(values, rows_in, rows_out)

    def publish(self, key: str, value: str) -> None:
        self.link.publish(key, value)

    def lookup(self, key: str, timeout_s: float) -> str:
        return self.link.lookup(key, timeout_s)

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        self.link.stop_job(reason, with_savepoint=with_savepoint)


def read_result(result_dir: Path, node: str) -> WorkerResult:
    """Return what the process has written; empty if it was killed."""
    path = _notes_path(result_dir, node)
    if not path.exists():
        return WorkerResult(rows_in=0)
    notes = msgspec.json.decode(path.read_bytes(), type=_Notes)
    rows = _rows_path(result_dir, node)
    emitted = None
    if rows.exists():
        with pa.OSFile(str(rows)) as file:
            emitted = pa.ipc.open_file(file).read_all()
    return WorkerResult(rows_in=notes.rows_in, history=tuple(notes.history), emitted=emitted)


def _notes_path(result_dir: Path, node: str) -> Path:
    return result_dir / f"{node}.json"


def _rows_path(result_dir: Path, node: str) -> Path:
    return result_dir / f"{node}.arrow"
