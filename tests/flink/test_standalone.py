"""A real standalone cluster, two TaskManagers of two slots: the ways to get a job onto it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

import pytest

import headrace.operator.job_end
from headrace.errors import JobManagerLostError, StopError, WaitTimeoutError
from headrace.operator.stop import has_ended
from tests.waiting import until

from .conftest import MakeEnvironment
from .programs.count import Count
from .remote import polling_clients, remote_handle
from .sql_models import write_module
from .standalone import Standalone, standalone_cluster
from .system import Process, descendants, mapped_files, open_files, threads_named
from .test_stop import require_complete
from .wire import Wire

_GPU_DRIVER = "org.apache.flink.externalresource.gpu.GPUDriverFactory"
GPUS = Path(__file__).with_name("programs") / "gpus.py"
COUNT = Path(__file__).with_name("programs") / "count.py"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    folder = tmp_path_factory.mktemp("standalone")
    discovery = folder / "discovery.sh"
    discovery.write_text("#!/bin/sh\necho 0,1\n")  # of two GPUs that this host need not have
    discovery.chmod(0o755)
    options = {
        "external-resources": "gpu",
        "external-resource.gpu.amount": "2",
        "external-resource.gpu.driver-factory.class": _GPU_DRIVER,
        "external-resource.gpu.param.discovery-script.path": str(discovery),
    }
    (folder / "cluster").mkdir()
    with standalone_cluster(folder / "cluster", options=options) as running:
        yield running


def read_rows(results: Path) -> list[dict[str, Any]]:
    """The rows that the sink has committed, by id."""
    parts = [path for path in results.rglob("part-*") if path.is_file()]
    rows = [json.loads(line) for path in parts for line in path.read_text().splitlines()]
    return sorted(rows, key=lambda row: int(row["id"]))


def ids(results: Path) -> list[int]:
    return [row["id"] for row in read_rows(results)]


def require_states_without_a_gap(rows: list[dict[str, Any]]) -> None:
    """Each worker of `count.py` has gone on with its count and its sum over all restores."""
    for worker in (0, 1):
        own = [row for row in rows if row["worker"] == worker]
        own.sort(key=lambda row: int(row["count"]))
        assert [row["count"] for row in own] == list(range(1, len(own) + 1))
        assert [row["total"] for row in own] == list(accumulate(row["id"] for row in own))


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", [pytest.param("python", marks=pytest.mark.long), "flink run"])
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


@pytest.mark.long
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


@pytest.mark.timeout(240)
def test_a_detached_job_is_seen_saved_stopped_and_goes_on_from_its_savepoint(
    cluster: Standalone, tmp_path: Path
) -> None:
    results, saved = tmp_path / "results", tmp_path / "saved"
    endless = (results.as_uri(), "--name", "detached", "--rows", "200000", "--rate", "500")
    run = ("-py", COUNT, *endless, "--checkpoints", "--detach")
    printed = cluster.flink_run("-d", *run)
    assert "Checkpoints of detached are on, and no directory is set for them. Flink" in printed
    first = cluster.wait_for_job("detached", "RUNNING")
    assert f"{first} : detached (RUNNING)" in cluster.flink("list", "--running")
    names = " -> ".join(each["name"] for each in cluster.ask(f"jobs/{first}")["vertices"])
    for name in ("Source: numbers", "detached am", "detached worker", "Writer"):
        assert name in names
    until(lambda: len(ids(results)) > 100, "committed rows", 60, cluster.logs)
    assert "Savepoint completed" in cluster.flink("savepoint", first, saved.as_uri())
    savepoint = stop(cluster, first, saved)
    assert cluster.jobs("detached") == {first: "FINISHED"}
    rows = len(ids(results))
    cluster.flink_run("-d", "-s", savepoint, *run)
    second = cluster.wait_for_job("detached", "RUNNING")
    until(lambda: len(ids(results)) > rows + 100, "more rows", 60, cluster.logs)
    savepoint = stop(cluster, second, saved, "--drain")
    rows = len(ids(results))
    assert ids(results) == list(range(1, rows + 1)), "each number once, no gap"
    cluster.flink_run("-d", f"-Dexecution.state-recovery.path={savepoint}", *run)
    third = cluster.wait_for_job("detached", "RUNNING")
    until(lambda: len(ids(results)) > rows + 100, "rows of the third", 60, cluster.logs)
    before = [each for manager in cluster.task_managers for each in descendants(manager.pid)]
    cluster.flink("cancel", third)
    assert cluster.wait_for_job("detached", "CANCELED", 5) == third
    until(lambda: not any(each.is_alive for each in before), "end of the processes", 5)
    require_states_without_a_gap(read_rows(results))


def stop(cluster: Standalone, job: str, saved: Path, *options: str) -> str:
    """Stop a job by `flink stop`; return its savepoint."""
    printed = cluster.flink("stop", *options, "--savepointPath", saved.as_uri(), job)
    path = re.search(r"Savepoint completed. Path: (\S+)", printed)
    assert path is not None, printed
    return path[1]


@pytest.mark.timeout(240)
def test_a_handle_that_has_lost_the_job_manager_finds_its_job_again(
    cluster: Standalone, tmp_path: Path, classes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("--name", "cut", "--rows", "200000", "--rate", "500", "--detach")
    cluster.python(COUNT, tmp_path.joinpath("results").as_uri(), *arguments)
    job = cluster.wait_for_job("cut", "RUNNING")
    saved = tmp_path / "saved"
    with Wire(int(cluster.rest.rpartition(":")[2])) as wire:
        handle = remote_handle(wire.port, job, "cut")
        until(lambda: handle.status().rows_in > 0, "rows", 60, cluster.logs)
        for _ in range(3):
            with pytest.raises(WaitTimeoutError):
                handle.wait(timeout_s=0.6, show_progress=False)
        until(lambda: polling_clients() == 1, "one client for all waits", 15)

        wire.cut()
        with pytest.raises(JobManagerLostError, match=r"may go on.*`rest.retry.max-attempts`"):
            handle.wait(timeout_s=60, show_progress=False)
        with pytest.raises(JobManagerLostError, match="Call the same again"):
            handle.stop(saved, timeout_s=60)
        wire.mend()
        with pytest.raises(StopError, match=r"\(RUNNING\). Flink may carry out the order"):
            handle.stop(saved, timeout_s=60)

        with pytest.raises(WaitTimeoutError):
            handle.wait(timeout_s=0.6, show_progress=False)
        wire.cut()
        until(lambda: has_ended(handle._end._j_future, 0), "a loss that nobody waits for")
        wire.mend()
        monkeypatch.setattr(headrace.operator.job_end, "_LEAST_S", 0.0)
        result = handle.stop(saved, timeout_s=60)
    require_complete(result.savepoint, saved)
    assert result.status.state == "FINISHED"
    assert cluster.jobs("cut") == {job: "FINISHED"}
    assert_nothing_left(cluster)


@pytest.mark.long
@pytest.mark.timeout(240)
def test_jobs_of_one_name_at_once_do_not_see_each_other(
    cluster: Standalone, tmp_path: Path, make_t_env: MakeEnvironment
) -> None:
    """Two on one cluster and one on another of the same machine; one of the three is killed."""

    def arguments(rows: int) -> tuple[str | Path, ...]:
        results = (tmp_path / str(rows)).as_uri()
        return (COUNT, results, "--name", "twin", "--rows", str(rows), "--rate", "1000")

    with cluster.started(*arguments(10**6)) as hurt:
        until(lambda: len(workers(cluster)) == 2, "two workers", 90, cluster.logs)
        victim = workers(cluster)[0]
        with cluster.started(*arguments(7000)) as other:
            until(lambda: len(workers(cluster)) == 4, "two workers more", 90, cluster.logs)
            make_t_env(2)  # the third job runs in a cluster inside this program's JVM
            results = (tmp_path / "6000").as_uri()
            third = Count(results=results, rows=6000, name="twin", rate=1000).submit()
            until(lambda: third.status().rows_in > 0, "rows", 60)
            os.kill(victim.pid, signal.SIGKILL)
            assert third.wait(timeout_s=60).status.rows_in == 6000
            assert cluster.finish(other)["rows_in"] == 7000
        _, told = hurt.communicate(timeout=60)
    assert hurt.returncode != 0
    assert re.search(r"worker-\d[\s\S]*ended by SIGKILL", told), told[-5000:]
    for rows in (6000, 7000):
        assert ids(tmp_path / str(rows)) == list(range(1, rows + 1))
    assert_nothing_left(cluster)


@pytest.mark.timeout(240)
def test_a_sql_file_trains_and_scores_on_the_cluster(
    cluster: Standalone, tmp_path: Path
) -> None:
    """The same statements as in Flink's SQL client, whose gateway is not in the pip package."""
    lib = write_module(tmp_path)["python.files"]
    script = tmp_path / "job.sql"
    script.write_text(f"""
        SET 'parallelism.default' = '2'; -- one subtask on each TaskManager
        SET 'table.exec.async-ml-predict.max-concurrent-operations' = '512';
        CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen',
            'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '5000');
        CREATE MODEL m INPUT (id BIGINT) OUTPUT (half DOUBLE, batch BIGINT) WITH (
            'provider' = 'headrace', 'framework' = 'python', 'factory' = 'user_models:halves',
            'batch-rows' = '256', 'python.files' = '{lib}',
            'python.executable' = '{sys.executable}');
        CREATE TABLE trainer (id BIGINT) WITH ('connector' = 'headrace', 'framework' = 'none',
            'entry' = 'user_models:count', 'workers' = '2', 'python.files' = '{lib}',
            'python.executable' = '{sys.executable}');
        CREATE TABLE results (id BIGINT, half DOUBLE) WITH ('connector' = 'filesystem',
            'path' = '{(tmp_path / "out").as_uri()}', 'format' = 'json');
        BEGIN STATEMENT SET;
        INSERT INTO results SELECT id, half FROM ML_PREDICT(
            TABLE numbers, MODEL m, DESCRIPTOR(id));
        INSERT INTO trainer SELECT id FROM numbers WHERE id <= 300;
        END;
    """)
    cluster.python("-m", "headrace.sql", script)
    rows = read_rows(tmp_path / "out")
    assert [(row["id"], row["half"]) for row in rows] == [(n, n / 2) for n in range(1, 5001)]
    assert sum(int(path.read_text()) for path in tmp_path.glob("worker-*")) == 300
    assert_nothing_left(cluster)


def workers(cluster: Standalone) -> list[Process]:
    """The algorithm processes that run on the cluster."""
    below = [each for manager in cluster.task_managers for each in descendants(manager.pid)]
    return [each for each in below if "framework.runner" in each.command]


def assert_nothing_left(cluster: Standalone) -> None:
    """No job has left a process, thread, file or segment in a TaskManager."""
    for each in cluster.task_managers:
        assert descendants(each.pid) == []
        assert threads_named(each.pid, "headrace") == []
        assert [path for path in mapped_files(each.pid) if "/headrace-" in path] == []
        assert [path for path in open_files(each.pid) if "/headrace-" in path] == []
    assert list(cluster.tmp_dir.rglob("headrace-*")) == []


@pytest.mark.timeout(240)
def test_workers_get_one_each_of_the_gpus_that_flink_assigns_to_all(
    cluster: Standalone, tmp_path: Path
) -> None:
    cluster.python(GPUS, (tmp_path / "auto").as_uri(), "2", "auto", "400")
    rows = read_rows(tmp_path / "auto")
    assert [row["id"] for row in rows] == list(range(1, 401))
    assert sorted({(row["pid"], row["gpu"]) for row in rows}, key=lambda each: each[1]) == [
        (next(row["pid"] for row in rows if row["gpu"] == gpu), gpu) for gpu in ("0", "1")
    ]
    with pytest.raises(AssertionError, match=r"\(0, 1\) are taken by other processes"):
        cluster.python(GPUS, (tmp_path / "many").as_uri(), "3", "cuda", "20")


@pytest.mark.timeout(240)
def test_models_in_sql_get_the_gpus_too_and_none_with_device_cpu(
    cluster: Standalone, tmp_path: Path
) -> None:
    lib = write_module(tmp_path)["python.files"]
    script = tmp_path / "job.sql"
    options = f"""'provider' = 'headrace', 'framework' = 'python',
        'factory' = 'user_models:sees_gpus', 'python.files' = '{lib}',
        'python.executable' = '{sys.executable}'"""
    results = {device: tmp_path / device for device in ("cuda", "cpu")}
    statements = [
        f"""CREATE MODEL m_{device} INPUT (id BIGINT) OUTPUT (gpu STRING)
            WITH ({options}, 'device' = '{device}');
        CREATE TABLE t_{device} (id BIGINT, gpu STRING) WITH ('connector' = 'filesystem',
            'path' = '{path.as_uri()}', 'format' = 'json');
        INSERT INTO t_{device} SELECT id, gpu FROM ML_PREDICT(
            TABLE numbers, MODEL m_{device}, DESCRIPTOR(id));"""
        for device, path in results.items()
    ]
    numbers = """CREATE TABLE numbers (id BIGINT) WITH ('connector' = 'datagen',
        'fields.id.kind' = 'sequence', 'fields.id.start' = '1', 'fields.id.end' = '20');"""
    script.write_text("\n".join([numbers, *statements]))
    cluster.python("-m", "headrace.sql", script)
    assert {row["gpu"] for row in read_rows(results["cpu"])} == {"-1"}
    assert {row["gpu"] for row in read_rows(results["cuda"])} in ({"0"}, {"1"})
    assert ids(results["cuda"]) == list(range(1, 21))
