"""Kill -9 on a real standalone cluster: the job recovers, and nothing stays behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.waiting import until

from .programs.train import replay
from .standalone import LOCALHOST, Standalone, standalone_cluster
from .system import Process, descendants, mapped_files
from .test_standalone import COUNT, ids, read_rows, require_states_without_a_gap

TRAIN = Path(__file__).with_name("programs") / "train.py"
_NOTICE_S = 5.0
_OPTIONS = {"heartbeat.interval": "1000 ms", "heartbeat.timeout": "10000 ms"}  # of Flink


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """Three TaskManagers: each of two tests kills one."""
    folder = tmp_path_factory.mktemp("faults")
    with standalone_cluster(folder, workers=(LOCALHOST,) * 3, options=_OPTIONS) as running:
        yield running


def require_equal_to_one_process(results: Path, model: Path, rows: int) -> None:
    """Every row was in one step, and the model is that of one process on the same steps."""
    steps = read_rows(results)
    assert [row["id"] for row in steps] == list(range(rows))
    saved = torch.load(model / "model.pt", weights_only=True)
    for name, value in replay(steps).state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-5)


def master_of(cluster: Standalone) -> subprocess.Popen[bytes]:
    """The TaskManager that runs a master."""
    return next(each for each in cluster.task_managers if "master" in commands(each))


def commands(task_manager: subprocess.Popen[bytes]) -> str:
    return " ".join(each.command for each in descendants(task_manager.pid))


def kill_with_all_that_follows(
    cluster: Standalone, task_manager: subprocess.Popen[bytes]
) -> None:
    """Kill a TaskManager; its Python processes must end, and shared memory be given back."""
    below, memory = descendants(task_manager.pid), segments(task_manager)
    assert below
    assert memory
    cluster.kill(task_manager)
    until(
        lambda: alive(below) == [] and not any(path.exists() for path in memory),
        "end of its processes and segments",
        _NOTICE_S,
        lambda: f"{alive(below)} {memory}",
    )


def segments(task_manager: subprocess.Popen[bytes]) -> set[Path]:
    """The files that its memory queues have, or had until they were mapped."""
    mapped = mapped_files(task_manager.pid)
    return {Path(path.removesuffix(" (deleted)")) for path in mapped if "/headrace-" in path}


def alive(processes: list[Process]) -> list[str]:
    return [each.command for each in processes if each.is_alive]


@pytest.mark.timeout(240)
def test_a_job_that_lost_a_task_manager_with_the_master_counts_every_row_exactly_once(
    cluster: Standalone, tmp_path: Path
) -> None:
    rows = 45_000  # 45 s: the source runs while the processes start, and must outlast that
    arguments = ("--name", "recovers", "--rows", str(rows), "--rate", "1000", "--checkpoints")
    with cluster.started(COUNT, tmp_path.as_uri(), *arguments) as program:
        cluster.wait_for_job("recovers", "RUNNING")
        until(lambda: len(ids(tmp_path)) > 0, "committed rows", 60, cluster.logs)
        kill_with_all_that_follows(cluster, master_of(cluster))
        summary = cluster.finish(program)
    assert summary["state"] == "FINISHED"
    assert summary["attempt"] > 1
    assert ids(tmp_path) == list(range(1, rows + 1))
    require_states_without_a_gap(read_rows(tmp_path))


@pytest.mark.timeout(240)
def test_training_that_lost_a_task_manager_while_it_started_trains_every_row_once(
    cluster: Standalone, tmp_path: Path
) -> None:
    results, model = tmp_path / "results", tmp_path / "model"
    arguments = ("--name", "trains", "--rows", "1000")
    starting: list[subprocess.Popen[bytes]] = []

    def is_starting() -> bool:
        starting.extend(
            each for each in cluster.task_managers if segments(each) and commands(each)
        )
        return starting != []

    with cluster.started(TRAIN, results.as_uri(), model, *arguments) as program:
        until(is_starting, "segments", 60, cluster.logs)
        kill_with_all_that_follows(cluster, starting[0])
        summary = cluster.finish(program)
    assert summary["rows_in"] == 1000
    assert summary["attempt"] > 1
    require_equal_to_one_process(results, model, 1000)
