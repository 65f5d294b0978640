"""The job that faults hit: two workers that leave marks and can be held at a moment."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import AMConfig, ExchangeConfig, RoleConfig, TimeoutConfig
from headrace.operator import Cluster, JobHandle
from tests.faults.flink.plan import Ending, Fault, Mode, Moment, Target, never_registers
from tests.faults.flink.task_managers import TaskManagers
from tests.flink.jvm import make_environment
from tests.ports import free_ports
from tests.waiting import pause_for, until

__all__ = ["ROWS", "WORKERS", "Scene", "open_scene"]

WORKERS = 2
ROWS = 4000
_SOME_ROWS = 200
_SMALL = ExchangeConfig(slots=2, slot_bytes=65_536, batch_rows=100)
_GATHER_S = 30.0
_SHORT_GATHER_S = 8.0
_HOLD_S = 150.0
"""Longer than any fault takes to show its consequences."""
_INTERPRETER = """#!/bin/sh
# Every node but the first one waits until the test lets it go.
if [ "$2" = headrace.framework.node ] && ! mkdir '{folder}/first-node' 2>/dev/null; then
    while [ ! -e '{folder}/go' ]; do sleep 0.05; done
fi
export PYTHONPATH='{path}'
exec '{python}' "$@"
"""


class Scene:
    """One job with its folders, in a mini-cluster or in a cluster that is there.

    Attributes:
        folder: Where the workers leave marks and the sink its rows.
        tmp_dir: Flink's temporary directory for this job.
        port: Port of the REST API of the job's cluster.
    """

    def __init__(self, fault: Fault, folder: Path, cluster: TaskManagers | None) -> None:
        self.fault = fault
        self.folder = folder
        self._cluster = cluster
        if cluster is None:
            self.tmp_dir = folder / "tmp"
            self.tmp_dir.mkdir()
            (self.port,) = free_ports(1)
        else:
            self.tmp_dir, self.port = cluster.tmp_dir, cluster.port

    def submit(self) -> JobHandle:
        """Submit the job."""
        fault = self.fault
        t_env = self._environment()
        cluster = Cluster(t_env, name="fault")
        cluster.add_am_role(_am(fault))
        role = RoleConfig(
            entry=_stream_entry(str(self.folder), fault.moment.name)
            if fault.mode is Mode.STREAM
            else _batch_entry(str(self.folder), fault.moment.name),
            parallelism=WORKERS,
            exchange=_SMALL,
        )
        if fault.mode is Mode.BATCH:
            cluster.add_role("worker", role)
            return cluster.submit()
        columns = {"id": DataTypes.BIGINT()}
        out = cluster.add_role("worker", role, input=self._rows(t_env), output=columns)
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE results (id BIGINT) WITH ('connector'='filesystem', "
            f"'path'='{(self.folder / 'out').as_uri()}', 'format'='json')"
        )
        statements = t_env.create_statement_set()
        assert isinstance(out, Table)
        statements.add_insert("results", out)
        return cluster.submit(statements)

    def let_go(self) -> None:
        """End every hold, now and later."""
        (self.folder / "go").touch()

    def is_held(self) -> bool:
        """Whether every worker has come to the moment."""
        return len(list(self.folder.glob("reached-*"))) == WORKERS

    def is_held_back(self, command: str) -> bool:
        """Whether a process is no node yet: the interpreter of GATHERING lets it wait."""
        return command.startswith(f"/bin/sh {self.folder}/python ")

    def attempts(self) -> dict[int, set[int]]:
        """The attempts that have run an entry function, with the workers that did."""
        found: dict[int, set[int]] = {}
        for mark in self.folder.glob("began-*"):
            _, index, attempt = mark.name.split("-")
            found.setdefault(int(attempt), set()).add(int(index))
        return found

    def events(self) -> list[dict[str, Any]]:
        """What the master has noted in its log, in order; it is there while the job runs."""
        logs = sorted(self.tmp_dir.rglob("events-*.jsonl"))
        return [json.loads(line) for log in logs for line in log.read_text().splitlines()[1:]]

    def results(self) -> list[int]:
        """What has come out for good: ids of rows, or numbers of workers in batch mode."""
        if self.fault.mode is Mode.BATCH:
            return sorted(int(p.name.partition("-")[2]) for p in self.folder.glob("done-*"))
        parts = [p for p in (self.folder / "out").rglob("part-*") if p.is_file()]
        return sorted(json.loads(r)["id"] for p in parts for r in p.read_text().splitlines())

    def expected_results(self) -> list[int]:
        """What must have come out of a job that ended well."""
        return [*range(WORKERS)] if self.fault.mode is Mode.BATCH else [*range(1, ROWS + 1)]

    def _environment(self) -> StreamTableEnvironment:
        if self._cluster is None:
            here = {
                "io.tmp.dirs": str(self.tmp_dir),
                "rest.port": str(self.port),
                "metrics.fetcher.update-interval": "50 ms",
            }
            return make_environment({**self._options(), **here})
        there = {
            "execution.target": "remote",
            "rest.address": "localhost",
            "rest.port": str(self.port),
        }
        return make_environment({**self._options(), **there})

    def _options(self) -> dict[str, str]:
        fault = self.fault
        options = {
            "web.refresh-interval": "100"
        }  # ms; how old an answer of the REST API may be
        if fault.ending in (Ending.RECOVER, Ending.CONTINUE, Ending.CANCEL):
            options["restart-strategy.type"] = "fixed-delay"
            # Flink may deploy to a TaskManager that is dead before it notices.
            options["restart-strategy.fixed-delay.attempts"] = (
                "1" if self._cluster is None else "9"
            )
            options["restart-strategy.fixed-delay.delay"] = "200 ms"
        else:
            options["restart-strategy.type"] = "disable"
        if fault.mode is Mode.STREAM:
            options["execution.checkpointing.interval"] = "100 ms"
            options["execution.checkpointing.dir"] = (self.folder / "checkpoints").as_uri()
        if fault.moment is Moment.GATHERING:
            options["python.executable"] = str(self._interpreter())
        return options

    def _interpreter(self) -> Path:
        path = self.folder / "python"
        text = _INTERPRETER.format(
            folder=self.folder, python=sys.executable, path=os.pathsep.join(sys.path)
        )
        path.write_text(text)
        path.chmod(0o700)
        return path

    def _rows(self, t_env: StreamTableEnvironment) -> Table:
        is_slow = self.fault.moment in (Moment.START, Moment.MIDDLE, Moment.GATHERING)
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
            f"'fields.id.kind'='sequence', 'fields.id.start'='1', 'fields.id.end'='{ROWS}', "
            f"'rows-per-second'='{2000 if is_slow else 1_000_000}')"
        )
        return t_env.from_path("numbers")


@contextmanager
def open_scene(fault: Fault, cluster: TaskManagers | None = None) -> Iterator[Scene]:
    """Make a scene in a folder with a short name, since sockets need one; then remove it."""
    folder = Path(tempfile.mkdtemp(prefix="fault-"))
    try:
        yield Scene(fault, folder, cluster)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _am(fault: Fault) -> AMConfig:
    is_final = fault.ending is Ending.FAIL
    timeouts = TimeoutConfig(
        # It also bounds how long a group waits for a frozen node to come back (batch mode).
        gather_timeout_s=_SHORT_GATHER_S
        if never_registers(fault) or (fault.mode is Mode.BATCH and fault.target is Target.NODE)
        else _GATHER_S,
        heartbeat_every_s=0.2,
        heartbeat_timeout_s=3.0,
        master_lost_timeout_s=10.0,
    )
    return AMConfig(
        max_restarts=0 if is_final else 1,
        max_master_restarts=0 if is_final and fault.target is Target.MASTER else 1,
        timeouts=timeouts,
    )


def _stream_entry(folder: str, moment: str) -> Callable[[Any], None]:
    """Give back every row; come to the moment, and stay there until the test lets go."""

    def entry(ctx: Any) -> None:
        from pathlib import Path

        def reach() -> None:
            (Path(folder) / f"reached-{ctx.index}").touch()

        def hold() -> None:
            reach()
            until((Path(folder) / "go").exists, "leave to go on", _HOLD_S)

        (Path(folder) / f"began-{ctx.index}-{ctx.attempt}").touch()
        rows = 0
        for batch in ctx.arrow_batches(rows=50):
            ctx.emit(batch)
            rows += batch.num_rows
            if rows >= _SOME_ROWS and moment == "FULL":
                hold()
            elif rows >= _SOME_ROWS and moment == "MIDDLE":
                reach()
                pause_for(0.02)
        hold()

    return entry


def _batch_entry(folder: str, moment: str) -> Callable[[Any], None]:
    """Work for a while, until the test lets go."""

    def entry(ctx: Any) -> None:
        from pathlib import Path

        (Path(folder) / f"began-{ctx.index}-{ctx.attempt}").touch()
        if moment == "END":
            pause_for(0.4)
        (Path(folder) / f"reached-{ctx.index}").touch()
        until((Path(folder) / "go").exists, "leave to go on", _HOLD_S)
        if moment != "END":
            pause_for(0.4)
        (Path(folder) / f"done-{ctx.index}").touch()

    return entry
