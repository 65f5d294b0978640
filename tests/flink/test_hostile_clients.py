"""Others on the same machine: what they may see of a running job, and what harm they can do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyflink.table import DataTypes

from headrace.config import AMConfig, RoleConfig, TimeoutConfig
from headrace.operator import Cluster, JobHandle
from tests.waiting import always, until

from .conftest import MakeEnvironment
from .hostile import (
    METHODS,
    bytes_for_a_port,
    bytes_for_a_queue,
    frame,
    held,
    oversized,
    record_call,
    send,
    status_of_call,
    to_port,
    to_socket,
)
from .system import Process, descendants, listening_ports, listening_sockets

ROWS = 20_000
SEED = 20260000
_NOBODY = 65534
_HEARTBEAT_LIMIT_S = 6.0


class Running:
    """A job of two workers that ends only after `release`."""

    def __init__(self, t_env: Any, folder: Path) -> None:
        self._gate = folder / "gate"
        self._results = folder / "results"
        gate = str(self._gate)
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
            "'fields.id.kind'='sequence', 'fields.id.start'='1', "
            f"'fields.id.end'='{ROWS}', 'rows-per-second'='4000')"
        )
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE results (id BIGINT) WITH ('connector'='filesystem', "
            f"'path'='{self._results.as_uri()}', 'format'='json')"
        )

        def entry(ctx: Any) -> None:
            for batch in ctx.batches(rows=50):
                ctx.emit({"id": batch["id"]})
                ctx.report(rows=len(batch["id"]))
            until(Path(gate).exists, "leave to end", 100)

        timeouts = TimeoutConfig(heartbeat_every_s=0.5, heartbeat_timeout_s=_HEARTBEAT_LIMIT_S)
        cluster = Cluster(t_env, name="attacked")
        cluster.add_am_role(AMConfig(timeouts=timeouts))
        out = cluster.add_role(
            "worker",
            RoleConfig(entry=entry, parallelism=2),
            input=t_env.from_path("numbers"),
            output={"id": DataTypes.BIGINT()},
        )
        statements = t_env.create_statement_set()
        statements.add_insert("results", out)
        self.job: JobHandle = cluster.submit(statements)

    def sockets(self) -> list[str]:
        """The sockets of both queues."""
        return [
            path
            for each in family()
            for path in listening_sockets(each.pid)
            if "headrace-" in path
        ]

    def master(self) -> Process | None:
        return next((each for each in family() if "framework.master" in each.command), None)

    def master_port(self) -> int:
        master = self.master()
        ports = [] if master is None else listening_ports(master.pid)
        return ports[0] if ports else 0

    def takes_rows(self) -> bool:
        """Whether both processes are connected: each has reported what it read."""
        nodes = self.job.status().nodes.values()
        return len(nodes) == 2 and all("rows" in node.report for node in nodes)

    def release(self) -> None:
        """Let the job end; its rows must be exact, and nothing may have been started again."""
        self._gate.touch()
        status = self.job.wait(timeout_s=60).status
        assert (status.state, status.attempt, status.restarts) == ("FINISHED", 1, 0)
        files = [path for path in self._results.rglob("part-*") if path.is_file()]
        rows = [
            json.loads(row)["id"] for path in files for row in path.read_text().splitlines()
        ]
        assert sorted(rows) == list(range(1, ROWS + 1))


def family() -> list[Process]:
    """Every process below this one: the JVM, and what it has started."""
    return descendants(os.getpid())


@pytest.fixture
def running(make_t_env: MakeEnvironment, tmp_path: Path) -> Iterator[Running]:
    job = Running(make_t_env(2), tmp_path)
    yield job
    if job.job.status().state not in ("FINISHED", "FAILED"):
        job.job.cancel()


_PROBE = """
import json, os, socket, sys
user, *paths = sys.argv[1:]
os.setgroups([])
os.setgid(int(user))
os.setuid(int(user))
tries = {}
for path in paths:
    try:
        if path.endswith("/queue"):
            socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect(path)
        elif os.path.isdir(path):
            os.listdir(path)
        else:
            open(path, "rb").close()
        tries[path] = "open"
    except OSError as error:
        tries[path] = type(error).__name__
print(json.dumps(tries))
"""


def tries_of(user: int, paths: list[str]) -> dict[str, str]:
    """What comes of it when that user opens each path: "open", or the name of the error."""
    command = [sys.executable, "-I", "-c", _PROBE, str(user), *paths]
    done = subprocess.run(command, capture_output=True, check=True, timeout=30)
    found: dict[str, str] = json.loads(done.stdout)
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="only root can try it as another user")
def test_another_user_of_the_machine_sees_nothing_of_a_job(running: Running) -> None:
    until(lambda: len(running.job.status().nodes) == 2, "two nodes", 60)
    until(lambda: running.job.status().rows_in > 0, "rows", 60)
    folders = [Path(path).parent for path in running.sockets()]
    master = running.master()
    assert master is not None
    folders.append(Path(f"/proc/{master.pid}/cwd").resolve())
    files = [path for folder in folders for path in folder.rglob("*")]
    names = {path.name for path in files}
    assert {"spec.json", "payload.pkl", "process.json", "queue", "events-0.jsonl"} <= names
    assert [str(path) for path in [*folders, *files] if path.stat().st_mode & 0o077] == []
    ours = [each for each in family() if "headrace" in each.command]
    assert len(ours) >= 5, "a JVM, a master, two nodes, two algorithm processes"
    hidden = [f"/proc/{each.pid}/{name}" for each in ours for name in ("environ", "fd", "maps")]
    paths = [*hidden, *(str(path) for path in [*folders, *files])]
    assert set(tries_of(_NOBODY, paths).values()) == {"PermissionError"}
    assert set(
        tries_of(0, [path for path in paths if not path.endswith("/queue")]).values()
    ) == {"open"}
    assert not [each.command for each in ours if re.search("[0-9a-f]{48}", each.command)], (
        "a command line is for everybody: no token in it"
    )
    running.release()


def test_hostile_bytes_and_idle_connections_do_a_job_no_harm(running: Running) -> None:
    until(lambda: len(running.sockets()) == 2, "two sockets", 60)
    # Before the processes have come: nobody may take their place.
    early = [to_socket(path) for path in running.sockets()]
    for connect in early:
        send(connect, b"\xff" * 1000)
        send(connect, frame(1, 1, b"not JSON"))
    with held(early[0], 20), held(early[1], 20, first=frame(1, 1)[:10]):
        until(lambda: running.job.status().state == "RUNNING", "running job", 60)
    # From here on there are those who could be taken for a process, were none connected.
    until(running.takes_rows, "rows in both processes", 60)
    port = to_port(("127.0.0.1", running.master_port()))
    address = f"127.0.0.1:{running.master_port()}"
    for method in (*METHODS, "NoSuchMethod"):
        for token in (None, "", "0" * 48):
            assert status_of_call(address, method, token) == "UNAUTHENTICATED"
    assert status_of_call(address, "Register", None, oversized()) == "UNAUTHENTICATED"
    with pytest.raises(ConnectionRefusedError):  # open where Flink's TaskManager is, only
        send(to_port(("127.0.0.2", running.master_port())), b"")
    for data in bytes_for_a_port(SEED, record_call()):
        send(port, data)
    for connect in early:
        for data in bytes_for_a_queue(SEED):
            send(connect, data)
    with held(port, 200), held(port, 20, first=b"PRI * HTTP/2.0"), held(early[0], 200):
        always(
            lambda: running.job.status().state == "RUNNING",
            "somebody was not heard while connections were held",
            for_s=_HEARTBEAT_LIMIT_S + 1,
        )
    running.release()
