"""A training has fewer workers while a TaskManager is lost, and more when there is another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.flink.sight import members
from tests.waiting import until

from .kept_job import NARROW, gone, processes
from .standalone import Standalone, standalone_cluster
from .test_kept_task_managers import Manager, has_master
from .test_live_rescaling import ADAPTIVE
from .test_training import require_union
from .training_jobs import read_rows

ROWS = 32_000  # 100 s of slow steps: what happens to the job may not outlast them
_CLEAN_S = 5.0
_TRAIN_S = 90.0
_OPTIONS = {
    **{key.replace("__", "-").replace("_", "."): value for key, value in ADAPTIVE.items()},
    **NARROW,
    "taskmanager.numberOfTaskSlots": "1",
    # Slots of two TaskManagers do not come at the same time.
    "jobmanager.adaptive-scheduler.submission.resource-stabilization-timeout": "3 s",
    "heartbeat.interval": "500 ms",
    "heartbeat.timeout": "5000 ms",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "10",
    "restart-strategy.fixed-delay.delay": "100 ms",
}


def await_workers(cluster: Standalone, job: str, folder: Path, count: int, since: int) -> int:
    """Wait until so many workers make steps in common, and for a checkpoint of them.

    Returns:
        Their attempt, which is a later one than `since`.
    """

    def attempts() -> set[int]:
        made = {path.name for path in (folder / "steps").iterdir()}
        ranks = {name.partition(".")[2] for name in made}
        assert ranks <= {"0-of-1", "0-of-2", "1-of-2"}
        found = {int(name.partition(".")[0]) for name in made}
        return {
            attempt
            for attempt in found
            if attempt > since
            and all(f"{attempt}.{rank}-of-{count}" in made for rank in range(count))
        }

    def completed() -> int:
        return int(cluster.ask(f"jobs/{job}/checkpoints")["counts"]["completed"])

    until(attempts, f"steps of {count} workers", _TRAIN_S, cluster.logs)
    before = completed()
    until(lambda: completed() > before + 1, "a checkpoint", _TRAIN_S, cluster.logs)
    return max(attempts())


def indices(cluster: Standalone) -> list[int]:
    """Of the workers; each is below a TaskManager of its own."""

    def below(manager: Manager) -> list[int | None]:
        return [each.index for each in members(manager.pid) if each.kind == "process"]

    found = [below(each) for each in cluster.task_managers]
    assert all(len(each) == 1 for each in found), found
    return sorted(index for (index,) in found if index is not None)


@pytest.mark.long  # test_live_rescaling.py changes the number of workers in CI
@pytest.mark.timeout(400)
def test_a_lost_task_manager_leaves_one_worker_and_the_next_one_brings_a_second(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "job"
    arguments = (folder, "--name", "elastic", "--rows", str(ROWS))
    with (
        standalone_cluster(tmp_path, slots=1, options=_OPTIONS) as cluster,
        cluster.started("-m", "tests.flink.programs.elastic", *arguments) as program,
    ):
        job = cluster.wait_for_job("elastic", "RUNNING")
        both = await_workers(cluster, job, folder, 2, since=0)
        (victim,) = (each for each in cluster.task_managers if has_master(each))
        assert indices(cluster) == [0, 1]
        below = processes(victim)
        cluster.kill(victim)
        until(lambda: gone(below), "end of what it had started", _CLEAN_S)
        alone = await_workers(cluster, job, folder, 1, since=both)
        assert indices(cluster) == [0]
        cluster.add_task_manager()
        again = await_workers(cluster, job, folder, 2, since=alone)
        assert indices(cluster) == [0, 1]
        (folder / "go").touch()
        summary = cluster.finish(program)
    assert summary["attempt"] >= again > alone > both
    rows = read_rows(folder / "out")
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    steps = {row["step"] for row in rows}
    assert steps == set(range(1, len(steps) + 1))
    require_union(rows, folder)
    reports = summary["reports"]
    assert {report["steps"] for report in reports.values()} == {len(steps)}
    assert sum(report["rows"] for report in reports.values()) == ROWS
