"""A JVM played by the test: real master and node processes, driven by their lines."""

from __future__ import annotations

import contextlib
import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace._environ import copy_environment
from headrace.config import TimeoutConfig
from headrace.framework import MasterSpec, NodeSpec, PlannedRole, dump_payload, encode_spec
from tests.waiting import until

_SRC = Path(__file__).resolve().parents[3] / "src"
QUICK = TimeoutConfig(
    gather_timeout_s=20.0,
    heartbeat_every_s=0.1,
    heartbeat_timeout_s=2.0,
    master_lost_timeout_s=20.0,
    stop_grace_s=1.0,
    stop_timeout_s=5.0,
)
TOKEN = "the-job's-secret"


class Child:
    """A master or node process; every wait is bounded and shows the log when it fails."""

    def __init__(self, module: str, log: Path, below: tuple[str, ...] = ()) -> None:
        self._log = log
        with log.open("wb") as stderr:
            self.popen = subprocess.Popen(
                [*below, sys.executable, "-m", f"headrace.framework.{module}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**copy_environment(), "PYTHONPATH": str(_SRC)},
            )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def send(self, kind: str, **fields: object) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(json.dumps({"type": kind, **fields}).encode() + b"\n")
        self.popen.stdin.flush()

    def expect(
        self,
        kind: str,
        timeout_s: float = 15.0,
        until: Callable[[dict[str, Any]], bool] = lambda _: True,
    ) -> dict[str, Any]:
        """Return the next line of this kind for which `until` holds; skip all others."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                pytest.fail(f"no {kind} in {timeout_s} s; lines {self.seen}; log:\n{self.log}")
            if line["type"] == kind and until(line):
                return line

    def expect_state(self, state: str, timeout_s: float = 15.0) -> dict[str, Any]:
        line = self.expect("status", timeout_s, lambda line: line["status"]["state"] == state)
        status: dict[str, Any] = line["status"]
        return status

    def close_stdin(self) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.close()

    def wait(self, timeout_s: float) -> int:
        """Return the exit code."""
        return self.popen.wait(timeout_s)

    def close(self) -> None:
        if self.popen.poll() is None:
            self.close_stdin()
            try:
                self.popen.wait(3)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                pytest.fail(f"a child outlived its stdin; log:\n{self.log}")
        self._thread.join()
        for pipe in (self.popen.stdin, self.popen.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        for data in self.popen.stdout:
            line = json.loads(data)
            self.seen.append(line)
            self._lines.put(line)


class Cluster:
    """Starts children as the operators do.

    Attributes:
        directory: Where they leave what.
        address: Where the master listens.
        below: Command before that of each child, which runs it as a child of its own.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.below: tuple[str, ...] = ()
        self.address = ""
        self._children: list[Child] = []

    def master(
        self,
        *,
        machine: str = "all_finish",
        parallelism: int = 1,
        has_input: bool = False,
        others: dict[str, int] | None = None,
        max_restarts: int = 3,
        timeouts: TimeoutConfig = QUICK,
        attempt: int = 1,
        **fields: object,
    ) -> Child:
        """Start a master and wait until it listens.

        Its roles are "worker", and `others` with their parallelism, which have no input.
        """
        more = {
            name: PlannedRole(planned_parallelism=count)
            for name, count in (others or {}).items()
        }
        worker = PlannedRole(planned_parallelism=parallelism, has_input=has_input)
        spec = MasterSpec(
            job_name="job",
            machine=machine,
            roles={"worker": worker, **more},
            max_restarts=max_restarts,
            timeouts=timeouts,
        )
        child, where = self._child("master", "am", encode_spec(spec), None)
        child.send(
            "start",
            **where,
            index=0,
            parallelism=1,
            token=TOKEN,
            attempt=attempt,
            **fields,
        )
        self.address = child.expect("listening")["address"]
        return child

    def node(
        self,
        entry: Callable[..., object] | None = None,
        *,
        role: str = "worker",
        index: int = 0,
        parallelism: int = 1,
        spec: NodeSpec | None = None,
        has_master: bool = False,
        payload: bytes | None = None,
        **fields: object,
    ) -> Child:
        """Start a node; without a master it decides by itself."""
        spec = spec or NodeSpec(timeouts=QUICK)
        payload = payload if payload is not None else dump_payload(entry=entry)
        child, where = self._child("node", role, encode_spec(spec), payload)
        if not has_master:
            fields["master"] = None
        child.send("start", **where, index=index, parallelism=parallelism, **fields)
        if has_master:
            self.introduce(child)
        return child

    def spare(
        self,
        entry: Callable[..., object],
        spec: NodeSpec | None = None,
        *,
        first: Callable[[Path], object] = lambda _: None,
        **fields: object,
    ) -> tuple[Child, dict[str, Any]]:
        """Start a spare node; return it with the fields that its start line must have.

        `first` is called with its work directory before the node is told of it.
        """
        content = encode_spec(spec or NodeSpec(timeouts=QUICK))
        child, where = self._child("node", "worker", content, dump_payload(entry=entry))
        first(Path(where["work_dir"]))
        names = ("role", "work_dir", "spec_path", "payload_path")
        child.send("prepare", **{name: where[name] for name in names}, **fields)
        return child, {**where, "index": 0, "parallelism": 1, "master": None}

    def broken(self, module: str) -> Child:
        """Start a master or a node whose spec is no JSON."""
        child, where = self._child(module, "worker", b"no spec", None)
        child.send("start", **where, index=0, parallelism=1, token=TOKEN, attempt=1)
        return child

    def nodes(self, entry: Callable[..., object], count: int, **fields: Any) -> list[Child]:
        """Start all nodes of the role, with the master."""
        return [
            self.node(entry, index=index, parallelism=count, has_master=True, **fields)
            for index in range(count)
        ]

    def introduce(self, child: Child, attempt: int = 1) -> None:
        """Tell a node where the master listens."""
        child.send("master", address=self.address, token=TOKEN, attempt=attempt)

    def close(self) -> None:
        for child in self._children:
            child.close()

    def _child(
        self, module: str, role: str, spec: bytes, payload: bytes | None
    ) -> tuple[Child, dict[str, Any]]:
        work_dir = self.directory / f"{module}-{len(self._children)}"
        work_dir.mkdir()
        (work_dir / "spec.json").write_bytes(spec)
        if payload is not None:
            (work_dir / "payload").write_bytes(payload)
        child = Child(module, self.directory / f"{work_dir.name}.log", self.below)
        self._children.append(child)
        where = {
            "job_name": "job",
            "role": role,
            "host": "127.0.0.1",
            "work_dir": str(work_dir),
            "spec_path": str(work_dir / "spec.json"),
            "payload_path": None if payload is None else str(work_dir / "payload"),
        }
        return child, where


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """What the test starts ends with it, and must end by itself."""
    it = Cluster(tmp_path)
    yield it
    it.close()


def is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] not in (b"Z", b"X")


@pytest.fixture
def wait_gone() -> Callable[..., None]:
    """Fail if a process is still alive after some seconds."""

    def wait(*pids: int, timeout_s: float = 2.0) -> None:
        until(
            lambda: not any(is_alive(pid) for pid in pids),
            "end of processes",
            timeout_s,
            lambda: str([pid for pid in pids if is_alive(pid)]),
        )

    return wait


@pytest.fixture
def wait_for_file() -> Callable[..., str]:
    """Return the text of a file once another process has renamed it into place."""

    def wait(path: Path, timeout_s: float = 10.0) -> str:
        until(path.exists, f"file {path}", timeout_s)
        return path.read_text()

    return wait
