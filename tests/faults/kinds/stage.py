"""The clusters that are struck, each with one TaskManager more than a job needs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.kinds.flink_job import FlinkJob
from tests.faults.kinds.growing import Growing
from tests.flink.hosts import Network
from tests.flink.kept_job import NARROW, processes
from tests.flink.sites import open_site
from tests.flink.standalone import LOCALHOST, Standalone, standalone_cluster
from tests.flink.system import Process, listening_ports
from tests.flink.zookeeper import high_availability

__all__ = [
    "HEARTBEAT_INTERVAL_S",
    "HEARTBEAT_TIMEOUT_S",
    "WORKERS",
    "Manager",
    "Stage",
    "open_host",
    "open_hosts",
]

Manager = subprocess.Popen[bytes]

WORKERS = 2
HEARTBEAT_INTERVAL_S = 1.0
HEARTBEAT_TIMEOUT_S = 5.0
_OPTIONS = {
    "heartbeat.interval": f"{HEARTBEAT_INTERVAL_S * 1000:.0f} ms",
    "heartbeat.timeout": f"{HEARTBEAT_TIMEOUT_S * 1000:.0f} ms",
    "web.refresh-interval": "100",  # ms; how old an answer may be
    **NARROW,
}


class Stage:
    """A cluster whose TaskManagers have one slot each.

    Attributes:
        cluster: It.
        network: Of its hosts; None where all of it is on this one.
    """

    def __init__(self, cluster: Standalone, network: Network | None = None) -> None:
        self.cluster = cluster
        self.network = network
        self._logs = Growing(cluster.folder / "log", "*taskexecutor*.log")
        self._ready: set[int] = set()

    def managers_of(self, job: FlinkJob) -> list[Manager]:
        """The TaskManagers that have a part of the job."""
        endpoints = job.endpoints()
        if self.network is None:
            ports = {port for _, port in endpoints}
            return [
                each
                for each in self.cluster.task_managers
                if ports.intersection(listening_ports(each.pid))
            ]
        hosts = {host for host, _ in endpoints}
        return [each for each in self.cluster.task_managers if self.host_of(each) in hosts]

    def host_of(self, manager: Manager) -> str:
        """The name of its host, where there are several; the first one has the JobManager."""
        assert self.network is not None
        return [*self.network.hosts][1 + self.cluster.task_managers.index(manager)]

    def has_spares(self) -> bool:
        """Whether so many TaskManagers have a worker, and a spare that has loaded its entry.

        Those of the training, that is; a spare that a worker has left may stand by elsewhere.
        """
        for _, line in self._logs.lines():
            before, found, _ = line.partition(" is ready")
            if found and "spare] process " in before:
                self._ready.add(int(before.rpartition(" ")[2]))
        return sum(map(self._has_spare, self.cluster.task_managers)) >= WORKERS

    def _has_spare(self, manager: Manager) -> bool:
        runners = [each for each in processes(manager) if "framework.runner" in each.command]
        ahead = [each for each in runners if "--ahead" in each.command]
        return (
            len(runners) == 2
            and bool(ahead)
            and all(_inner_pid(each) in self._ready for each in ahead)
        )


@contextmanager
def open_host(folder: Path) -> Iterator[Stage]:
    """Start three TaskManagers and two JobManagers on this host, with high availability.

    Of the JobManagers one leads, and the other one stands by.

    Args:
        folder: An empty one.
    """
    (folder / "flink").mkdir()
    with (
        high_availability(folder) as available,
        standalone_cluster(
            folder / "flink",
            workers=(LOCALHOST,) * (WORKERS + 1),
            slots=1,
            options={**available, **_OPTIONS},
        ) as cluster,
    ):
        cluster.add_standby()
        yield Stage(cluster)


@contextmanager
def open_hosts(folder: Path) -> Iterator[Stage]:
    """Start three TaskManagers and a JobManager, each on a host of its own.

    Args:
        folder: An empty one, which all hosts have in common.
    """
    with open_site(folder, _OPTIONS, more=["third"]) as site:
        yield Stage(site.cluster, site.network)


def _inner_pid(process: Process) -> int:
    """Return a process' number as it knows it itself."""
    try:
        status = Path(f"/proc/{process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return process.pid
    return next(
        int(line.split()[-1]) for line in status.splitlines() if line.startswith("NSpid:")
    )
