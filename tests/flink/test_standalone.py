"""A real standalone cluster, two TaskManagers of two slots: the ways to get a job onto it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .standalone import Standalone, standalone_cluster
from .system import descendants, mapped_files, open_files, threads_named

COUNT = Path(__file__).with_name("programs") / "count.py"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone_cluster(tmp_path_factory.mktemp("standalone")) as running:
        yield running


def read_rows(results: Path) -> list[dict[str, Any]]:
    """The rows that the sink has committed, by id."""
    parts = [path for path in results.rglob("part-*") if path.is_file()]
    rows = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: int(row["id"]))


def ids(results: Path) -> list[int]:
    return [row["id"] for row in read_rows(results)]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["python", "flink run"])
def test_the_demo_trains_on_both_task_managers(
    cluster: Standalone, tmp_path: Path, how: str
) -> None:
    options = ("--days", "2", "--epochs", "2", "--out", tmp_path)
    if how == "python":
        printed = cluster.python("-m", "examples.flight_delays", *options)
    else:
        printed = cluster.flink_run("-pym", "examples.flight_delays.__main__", *options)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    by_worker = metrics["rows"]["by_worker"]
    assert sorted(by_worker) == ["worker-0", "worker-1"]
    assert 1000 < metrics["rows"]["training"] == sum(by_worker.values())
    assert 0 < metrics["held_out_errors"]["model"]["mae_min"] < 30
    assert f"rows trained on: {metrics['rows']['training']:,}" in printed
    (job,) = (job for job in cluster.jobs("flight-delays") if job in printed)
    workers = [
        each["taskmanager-id"]
        for vertex in cluster.ask(f"jobs/{job}")["vertices"]
        if "flight-delays worker" in vertex["name"]
        for each in cluster.ask(f"jobs/{job}/vertices/{vertex['id']}")["subtasks"]
    ]
    assert len(workers) == len(set(workers)) == 2


@pytest.mark.timeout(240)
def test_four_workers_on_two_task_managers_share_every_row(
    cluster: Standalone, tmp_path: Path
) -> None:
    options = ("--name", "four", "--rows", "100000", "--workers", "4")
    printed = cluster.flink_run("-py", COUNT, tmp_path.as_uri(), *options)
    assert '{"state": "FINISHED", "rows_in": 100000, "attempt": 1}' in printed
    rows = read_rows(tmp_path)
    assert [row["id"] for row in rows] == list(range(1, 100_001))
    assert {row["worker"] for row in rows} == {0, 1, 2, 3}
    logs = (path.read_text() for path in (cluster.folder / "log").glob("*taskexecutor*.log"))
    assert all("of four starts" in log for log in logs), "each runs workers, logs their output"


@pytest.mark.timeout(240)
def test_ten_jobs_one_after_the_other_leave_nothing_in_the_task_managers(
    cluster: Standalone, tmp_path: Path
) -> None:
    printed = cluster.python(
        COUNT,
        tmp_path.joinpath("ten").as_uri(),
        *("--name", "series", "--rows", "1000", "--jobs", "10", "--workers", "1"),
        timeout_s=200,
    )
    summaries = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    assert summaries == [{"state": "FINISHED", "rows_in": 1000, "attempt": 1}] * 10
    assert ids(tmp_path / "ten") == sorted(list(range(1, 1001)) * 10)
    assert_nothing_left(cluster)


def assert_nothing_left(cluster: Standalone) -> None:
    """No job has left a process, thread, file or segment in a TaskManager."""
    for each in cluster.task_managers:
        assert descendants(each.pid) == []
        assert threads_named(each.pid, "headrace") == []
        assert [path for path in mapped_files(each.pid) if "/headrace-" in path] == []
        assert [path for path in open_files(each.pid) if "/headrace-" in path] == []
    assert list(cluster.tmp_dir.rglob("headrace-*")) == []
