"""The JobManager is killed on a cluster with Flink's high availability: the training goes on.

Everything comes from the pip package, ZooKeeper too.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pytest

from headrace.errors import JobManagerLostError, WaitTimeoutError
from headrace.operator import JobHandle
from tests.faults.chaos.jobs import Case, Places
from tests.faults.chaos.proof import require_exact_results
from tests.segments import segments
from tests.waiting import until

from .kept_job import KEEP, NARROW, await_kept, gone, processes, running
from .remote import remote_handle
from .standalone import Standalone, standalone_cluster
from .zookeeper import high_availability

_HEARTBEAT_S = 5
_SLOT_S = 10.0  # for how long a TaskManager keeps the slots of a JobManager that it has lost
ROWS = 32_000  # 100 s of slow steps: what happens to the job may not outlast them


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """One for each test, which has others of its JVMs in the end."""
    folder = tmp_path_factory.mktemp("ha")
    (folder / "flink").mkdir()
    with high_availability(folder) as available:
        options = {
            **available,
            "heartbeat.interval": "1000 ms",
            "heartbeat.timeout": f"{_HEARTBEAT_S * 1000} ms",
            **NARROW,
        }
        with standalone_cluster(folder / "flink", options=options, slots=1) as running:
            yield running


@pytest.mark.long  # a cluster of five JVMs for each
@pytest.mark.timeout(600)
@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_a_training_goes_on_after_a_task_manager_and_the_job_manager_were_killed(
    cluster: Standalone,
    tmp_path: Path,
    classes: Any,
    framework: Literal["pytorch", "tensorflow"],
) -> None:
    name = f"ha-{framework}"
    places = Places(tmp_path / "job")
    arguments = (places.folder, framework, "--name", name, "--rows", str(ROWS))
    with cluster.started(*KEEP, *arguments) as program:
        job = cluster.wait_for_job(name, "RUNNING")
        handle = remote_handle(int(cluster.rest.rpartition(":")[2]), job, name)
        for strike in (replace_task_manager, partial(replace_job_manager, handle=handle)):
            suffer(cluster, places, strike)
        assert cluster.wait_for_job(name, "RUNNING") == job
        (places.folder / "go").touch()
        summary = cluster.finish(program)
    assert summary["attempt"] > 2
    found = handle.wait(timeout_s=60, show_progress=False)
    assert (found.status.state, found.status.attempt) == ("FINISHED", summary["attempt"])
    require_exact_results(Case(framework, 2, ROWS, 0), summary["reports"], places)
    cluster.wait_for_slots()
    until(lambda: not any(processes(each) for each in cluster.task_managers), "end of all", 10)
    until(lambda: not segments(), "end of all segments", 10)


def suffer(cluster: Standalone, places: Places, strike: Callable[[Standalone], None]) -> None:
    """Strike behind a checkpoint; what ran must end, and others must go on."""
    await_kept(places, cluster.logs)
    former = running(cluster.task_managers)
    assert len(former) == 5, "master, two nodes, two processes"
    before = {path.name for path in places.steps.iterdir()}
    strike(cluster)
    until(
        lambda: gone(former),
        "end of what ran before",
        _HEARTBEAT_S + _SLOT_S + 10,
        cluster.logs,
    )
    until(
        lambda: len({path.name for path in places.steps.iterdir()} - before) == 2,
        "steps of two other processes",
        90,
        cluster.logs,
    )


def replace_task_manager(cluster: Standalone) -> None:
    """Kill the one that runs the master; start another one."""
    cluster.kill(next(each for each in cluster.task_managers if "master" in commands(each)))
    cluster.add_task_manager()


def replace_job_manager(cluster: Standalone, handle: JobHandle) -> None:
    """Kill it; whose client gives it up is told so, and not that the job has failed."""
    with pytest.raises(WaitTimeoutError):
        handle.wait(timeout_s=1, show_progress=False)
    cluster.replace_job_manager()
    with pytest.raises(JobManagerLostError):
        handle.wait(timeout_s=60, show_progress=False)


def commands(manager: subprocess.Popen[bytes]) -> str:
    return " ".join(each.command for each in processes(manager))
