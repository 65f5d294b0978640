"""A cluster of JVMs of its own, whose TaskManagers can be hit and replaced."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyflink
from ruamel.yaml import YAML

from headrace._environ import copy_environment
from tests.ports import free_ports
from tests.waiting import until

__all__ = ["TaskManagers", "task_managers"]

_HOME = Path(pyflink.__file__).parent
_START_S = 150.0
_SLOTS = 2


class TaskManagers:
    """A JobManager and as many TaskManagers as are wanted, with two slots each.

    Attributes:
        port: Port of the REST API.
        tmp_dir: Temporary directory of all TaskManagers.
    """

    def __init__(self, folder: Path) -> None:
        self.port, rpc_port = free_ports(2)
        self.tmp_dir = folder / "tmp"
        self.tmp_dir.mkdir()
        self._folder = folder
        self._environment = _configure(folder, self.tmp_dir, self.port, rpc_port)
        self._started: list[subprocess.Popen[bytes]] = []

    def start_job_manager(self) -> None:
        """Start the JobManager; once."""
        self._start("jobmanager.sh")

    def bring_to(self, count: int) -> None:
        """Start TaskManagers until so many live, and wait until all their slots are free."""
        for _ in range(count - sum(each.poll() is None for each in self._started[1:])):
            self._start("taskmanager.sh")
        wanted = (count, count * _SLOTS)
        until(lambda: self._overview() == wanted, f"{count} TaskManagers", _START_S)

    def close(self) -> None:
        """End every JVM that still lives."""
        for each in reversed(self._started):
            each.kill()
            each.wait()

    def _start(self, script: str) -> None:
        with (self._folder / "out.log").open("ab") as out:
            self._started.append(
                subprocess.Popen(
                    ["bash", str(_HOME / "bin" / script), "start-foreground"],
                    env=self._environment,
                    cwd=self._folder,  # for what a JVM that crashes writes
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=out,
                )
            )

    def _overview(self) -> tuple[int, int] | None:
        """Number of TaskManagers that have registered, and of free slots."""
        try:
            with urllib.request.urlopen(
                f"http://localhost:{self.port}/overview", timeout=5
            ) as reply:
                found = json.load(reply)
        except OSError:
            return None
        return found["taskmanagers"], found["slots-available"]


@contextmanager
def task_managers(folder: Path) -> Iterator[TaskManagers]:
    """Start a cluster without TaskManagers; end every JVM of it afterwards."""
    cluster = TaskManagers(folder)
    try:
        cluster.start_job_manager()
        yield cluster
    finally:
        cluster.close()


def _configure(folder: Path, tmp_dir: Path, port: int, rpc_port: int) -> dict[str, str]:
    """Write the configuration; return the environment of the JVMs."""
    shutil.copytree(_HOME / "conf", folder / "conf")
    yaml = YAML()
    config = yaml.load(folder / "conf" / "config.yaml")
    config["rest"] = {"address": "localhost", "port": port, "bind-port": str(port)}
    config["jobmanager"]["rpc"]["port"] = rpc_port
    config["jobmanager"]["memory"]["process"]["size"] = "1g"
    config["taskmanager"]["memory"]["process"]["size"] = "1g"
    config["taskmanager"]["numberOfTaskSlots"] = _SLOTS
    config["cluster"] = {"evenly-spread-out-slots": True}
    config["heartbeat"] = {"interval": 500, "timeout": 4000}
    config["io"] = {"tmp": {"dirs": str(tmp_dir)}}
    config["python"] = {"executable": sys.executable}
    config["web"] = {"refresh-interval": 100}
    config["metrics"] = {"fetcher": {"update-interval": "50 ms"}}
    yaml.dump(config, folder / "conf" / "config.yaml")
    return {
        **copy_environment(),
        "FLINK_CONF_DIR": str(folder / "conf"),
        "FLINK_LOG_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
