"""A real standalone cluster from the pip package's `bin/`: a JobManager and TaskManagers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyflink
from ruamel.yaml import YAML

from headrace._environ import copy_environment
from headrace.framework.node.family import build_parent_watch
from tests.ports import free_ports
from tests.waiting import until

_START_LIMIT_S = 120.0
_END_LIMIT_S = 30.0
_HOME = Path(pyflink.__file__).parent
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Where a Flink process runs, and by what name the others reach it.

    Attributes:
        name: Host name.
        address: What clients that do not know the name use.
        inside: Start of every command that is to run there.
    """

    name: str = "localhost"
    address: str = "localhost"
    inside: tuple[str, ...] = ()


LOCALHOST = Host()


@dataclass(slots=True, kw_only=True)
class Standalone:
    """A cluster; each of its Flink processes is a child of this one.

    Attributes:
        folder: Configuration, logs and temporary files.
        rest: "host:port" of the web UI and REST API.
        slots: Of each TaskManager.
        job_manager: Runs as long as the cluster.
        task_managers: Those that run.
        standby: A JobManager that waits to take over, and its "host:port", where there is one.
    """

    folder: Path
    rest: str
    slots: int
    job_manager: subprocess.Popen[bytes] = field(init=False)
    task_managers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    standby: tuple[subprocess.Popen[bytes], str] | None = None

    @property
    def conf_dir(self) -> Path:
        """Configuration folder; clients set FLINK_CONF_DIR to it."""
        return self.folder / "conf"

    @property
    def tmp_dir(self) -> Path:
        """Where Flink puts temporary files."""
        return self.folder / "tmp"

    def environment(self) -> dict[str, str]:
        """Environment of a client program; plain `python` submits to this cluster by it."""
        return {
            **copy_environment(),
            "FLINK_CONF_DIR": str(self.conf_dir),
            "FLINK_BIN_DIR": str(_HOME / "bin"),
            "FLINK_LOG_DIR": str(self.folder / "log"),
            "SUBMIT_ARGS": "remote",
        }

    def run(self, *command: str | Path, timeout_s: float = 200) -> str:
        """Run a client program to its good end; return what it printed."""
        done = subprocess.run(
            [str(each) for each in command],
            cwd=_ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr[-5000:]}\n{self.logs()}"
        return done.stdout

    def python(self, *arguments: str | Path, timeout_s: float = 200) -> str:
        """Run a Python program that submits a job."""
        return self.run(sys.executable, *arguments, timeout_s=timeout_s)

    def flink(self, *arguments: str | Path, timeout_s: float = 200) -> str:
        """Run `bin/flink`."""
        return self.run(_HOME / "bin" / "flink", *arguments, timeout_s=timeout_s)

    def flink_run(self, *arguments: str | Path) -> str:
        """Run `bin/flink run` with this interpreter on both sides."""
        clients = ("-pyclientexec", sys.executable, "-pyexec", sys.executable)
        return self.flink("run", *clients, *arguments)

    @contextmanager
    def started(self, *arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
        """Start a Python program that submits a job; `finish` waits for its end."""
        program = subprocess.Popen(
            [sys.executable, *(str(each) for each in arguments)],
            cwd=_ROOT,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a JVM is below it
            preexec_fn=build_parent_watch(os.getpid()),
        )
        with program:
            try:
                yield program
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(program.pid, signal.SIGKILL)

    def finish(self, program: subprocess.Popen[str], timeout_s: float = 200) -> dict[str, Any]:
        """Wait for the good end of a program; return the JSON in its last line."""
        stdout, stderr = program.communicate(timeout=timeout_s)
        assert program.returncode == 0, f"{stdout}\n{stderr[-5000:]}\n{self.logs()}"
        summary: dict[str, Any] = json.loads(stdout.splitlines()[-1])
        return summary

    def ask(self, path: str) -> Any:
        """Ask the REST API."""
        return self._ask(self.rest, path)

    def jobs(self, name: str) -> dict[str, str]:
        """Return id and state of the jobs of that name."""
        found = self.ask("jobs/overview")["jobs"]
        return {each["jid"]: each["state"] for each in found if each["name"] == name}

    def wait_for_job(self, name: str, state: str, timeout_s: float = 60.0) -> str:
        """Wait until a job of that name is in that state; return its id."""

        def found() -> str:
            return next((job for job, at in self.jobs(name).items() if at == state), "")

        return until(found, f"a job {name} in {state}", timeout_s, self.logs)

    def add_task_manager(self, host: Host = LOCALHOST) -> subprocess.Popen[bytes]:
        """Start one more TaskManager; `wait_for_slots` waits for it."""
        started = self._start("taskmanager.sh", host, f"-Dtaskmanager.host={host.name}")
        self.task_managers.append(started)
        return started

    def kill(self, task_manager: subprocess.Popen[bytes]) -> None:
        """Kill a TaskManager as the kernel does when memory runs out."""
        self.task_managers.remove(task_manager)
        task_manager.kill()
        task_manager.wait()

    def replace_job_manager(self) -> None:
        """Kill the JobManager as `kill` does; start another one with the same configuration.

        For a cluster on this host alone.
        """
        self.job_manager.kill()
        self.job_manager.wait()
        self.job_manager = self._start("jobmanager.sh", LOCALHOST)

    def add_standby(self) -> None:
        """Start a JobManager that takes over from one that is lost; wait until it answers.

        For a cluster on this host alone, with high availability.
        """
        (port,) = free_ports(1)
        ports = ("-D", f"rest.port={port}", "-D", f"rest.bind-port={port}")
        rest = f"localhost:{port}"
        self.standby = self._start("jobmanager.sh", LOCALHOST, *ports), rest

        def answers() -> bool:
            with suppress(OSError):
                return bool(self._ask(rest, "overview"))
            return False

        until(answers, "answer of the JobManager that stands by", _START_LIMIT_S, self.logs)

    def lose_job_manager(self) -> None:
        """Kill the JobManager as `kill` does; the one that stands by is it from now on."""
        assert self.standby is not None
        self.job_manager.kill()
        self.job_manager.wait()
        (self.job_manager, self.rest), self.standby = self.standby, None

    def wait_for_slots(self) -> None:
        """Wait until every TaskManager has offered its slots, and no other is known."""
        slots = self.slots * len(self.task_managers)

        def are_there() -> bool:
            assert self.job_manager.poll() is None, f"no JobManager\n{self.logs()}"
            try:
                return bool(self.ask("overview")["slots-total"] == slots)
            except OSError:
                return False

        until(are_there, f"{slots} slots", _START_LIMIT_S, self.logs)

    def logs(self, kind: str = "*") -> str:
        """The last part of each log, for assertions and for a failing test."""
        files = sorted((self.folder / "log").glob(f"{kind}.log"))
        return "\n".join(f"{file.name}:\n{file.read_text()[-20_000:]}" for file in files)

    def _ask(self, rest: str, path: str) -> Any:
        with urllib.request.urlopen(f"http://{rest}/{path}", timeout=5) as reply:
            return json.load(reply)

    def _start(self, script: str, host: Host, *arguments: str) -> subprocess.Popen[bytes]:
        command = ["bash", str(_HOME / "bin" / script), "start-foreground", *arguments]
        environment = {**self.environment(), "FLINK_PID_DIR": str(self.folder / "pid")}
        return subprocess.Popen(
            [*host.inside, *command],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=build_parent_watch(os.getpid()),  # tests that are killed end nothing
        )


@contextmanager
def standalone_cluster(
    folder: Path,
    *,
    master: Host = LOCALHOST,
    workers: Sequence[Host] = (LOCALHOST, LOCALHOST),
    slots: int = 2,
    options: dict[str, str] | None = None,
) -> Iterator[Standalone]:
    """Start a cluster, wait for its slots, and end every process of it afterwards.

    Args:
        folder: An empty one.
        master: Where the JobManager runs.
        workers: Where the TaskManagers run.
        slots: Of each TaskManager.
        options: Further Flink options.
    """
    rest_port, rpc_port = free_ports(2)
    cluster = Standalone(folder=folder, rest=f"{master.address}:{rest_port}", slots=slots)
    shutil.copytree(_HOME / "conf", cluster.conf_dir)
    for name in ("log", "tmp", "pid"):
        (folder / name).mkdir(exist_ok=True)
    config = {
        "rest.address": master.address,
        "rest.bind-address": master.address,
        "rest.port": rest_port,
        "rest.bind-port": str(rest_port),
        "jobmanager.rpc.address": master.name,
        "jobmanager.rpc.port": rpc_port,
        "jobmanager.bind-host": master.name,
        "jobmanager.memory.process.size": "1024m",
        "taskmanager.bind-host": "0.0.0.0",
        "taskmanager.numberOfTaskSlots": slots,
        "taskmanager.memory.process.size": "1280m",
        "taskmanager.memory.managed.fraction": 0.1,
        "io.tmp.dirs": str(cluster.tmp_dir),
        "taskmanager.load-balance.mode": "SLOTS",  # every TaskManager gets a part of each job
        "python.executable": sys.executable,
        "execution.target": "remote",
        **(options or {}),
    }
    _write_config(cluster.conf_dir / "config.yaml", config)
    cluster.job_manager = cluster._start("jobmanager.sh", master)
    try:
        for each in workers:
            cluster.add_task_manager(each)
        cluster.wait_for_slots()
        yield cluster
    finally:
        # What has a host of its own ends with it, and does not hear what its host is sent.
        limit_s = 0.0 if master.inside else _END_LIMIT_S
        standby = [] if cluster.standby is None else [cluster.standby[0]]
        _end([*cluster.task_managers, cluster.job_manager, *standby], limit_s)


def _end(processes: Sequence[subprocess.Popen[bytes]], limit_s: float) -> None:
    for each in processes:
        each.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + limit_s
    for each in processes:
        with suppress(subprocess.TimeoutExpired):
            each.wait(max(0.0, deadline - time.monotonic()))
    for each in processes:
        each.kill()
        each.wait()


def _write_config(path: Path, options: dict[str, object]) -> None:
    yaml = YAML()
    config = yaml.load(path)
    for key, value in options.items():
        *folders, name = key.split(".")
        at = config
        for each in folders:
            at = at.setdefault(each, {})
        at[name] = value
    yaml.dump(config, path)
