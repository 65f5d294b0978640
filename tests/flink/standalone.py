"""A real standalone cluster from the pip package's `bin/`: one JobManager, two TaskManagers."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyflink
from ruamel.yaml import YAML

from headrace._environ import copy_environment

_START_LIMIT_S = 60.0
_HOME = Path(pyflink.__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone:
    """A running cluster.

    Attributes:
        conf_dir: Configuration folder; clients set FLINK_CONF_DIR to it.
        rest_port: Port of the web UI and REST API.
        log_dir: Logs of JobManager and TaskManagers.
    """

    conf_dir: Path
    rest_port: int
    log_dir: Path

    def environment(self) -> dict[str, str]:
        """Environment of a client program; plain `python` submits to this cluster by it."""
        return {
            **copy_environment(),
            "FLINK_CONF_DIR": str(self.conf_dir),
            "FLINK_BIN_DIR": str(_HOME / "bin"),
            "SUBMIT_ARGS": "remote",
        }

    def run_command(self) -> list[str]:
        """The start of a command that submits a program."""
        flink = str(_HOME / "bin" / "flink")
        return [flink, "run", "-pyclientexec", sys.executable, "-pyexec", sys.executable]

    def finished_jobs(self) -> int:
        """How many jobs have ended well here."""
        url = f"http://localhost:{self.rest_port}/overview"
        with urllib.request.urlopen(url, timeout=5) as reply:
            return int(json.load(reply)["jobs-finished"])

    def logs(self) -> str:
        """All logs, for assertions and for a failing test."""
        return "\n".join(p.read_text() for p in sorted(self.log_dir.glob("*.log")))


@contextmanager
def standalone_cluster(
    folder: Path, *, task_managers: int = 2, slots: int = 2
) -> Iterator[Standalone]:
    """Start a cluster, wait for its slots, and end every process of it afterwards."""
    rest_port, rpc_port = _free_ports(2)
    cluster = Standalone(conf_dir=folder / "conf", rest_port=rest_port, log_dir=folder / "log")
    shutil.copytree(_HOME / "conf", cluster.conf_dir)
    cluster.log_dir.mkdir()
    config_file = cluster.conf_dir / "config.yaml"
    yaml = YAML()
    config = yaml.load(config_file)
    config["rest"] = {"address": "localhost", "port": rest_port, "bind-port": str(rest_port)}
    config["jobmanager"]["rpc"]["port"] = rpc_port
    config["taskmanager"]["numberOfTaskSlots"] = slots
    config["python"] = {"executable": sys.executable}
    config["execution"] = {"target": "remote"}
    yaml.dump(config, config_file)
    (cluster.conf_dir / "masters").write_text(f"localhost:{rest_port}\n")
    (cluster.conf_dir / "workers").write_text("localhost\n" * task_managers)
    environment = {
        **cluster.environment(),
        "FLINK_LOG_DIR": str(cluster.log_dir),
        "FLINK_PID_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    try:
        _bin("start-cluster.sh", environment)
        _wait_for_slots(cluster, task_managers * slots)
        yield cluster
    finally:
        _bin("stop-cluster.sh", environment)


def _bin(script: str, environment: dict[str, str]) -> None:
    subprocess.run(
        ["bash", str(_HOME / "bin" / script)],
        env=environment,
        check=True,
        capture_output=True,
        timeout=60,
    )


def _wait_for_slots(cluster: Standalone, slots: int) -> None:
    deadline = time.monotonic() + _START_LIMIT_S
    while True:
        try:
            url = f"http://localhost:{cluster.rest_port}/overview"
            with urllib.request.urlopen(url, timeout=5) as reply:
                if json.load(reply)["slots-total"] == slots:
                    return
        except OSError:
            pass
        assert time.monotonic() < deadline, f"no {slots} slots:\n{cluster.logs()[-5000:]}"
        time.sleep(0.1)  # noqa: TID251 - polling another process


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("localhost", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
