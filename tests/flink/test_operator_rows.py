"""How the operators of the JVM hand rows to a process, with scripted children."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table

from headrace.config import TimeoutConfig
from headrace.errors import JobFailedError
from headrace.operator.failure import cause_text
from tests.waiting import until

from .conftest import MakeEnvironment
from .jvm import is_waiting_for_a_slot
from .scripted_cluster import ScriptedCluster
from .test_operator_ends import RETRIES

CHECKPOINTS = {
    "execution_checkpointing_interval": "100 ms",
    "execution_checkpointing_tolerable__failed__checkpoints": "1000",
}


def numbers(t_env: StreamTableEnvironment, rows: int, *, per_second: int = 1_000_000) -> Table:
    """The numbers from 1 to `rows` in one BIGINT column."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        f"'fields.id.kind'='sequence', 'fields.id.start'='1', 'fields.id.end'='{rows}', "
        f"'rows-per-second'='{per_second}')"
    )
    return t_env.from_path("numbers")


def sink_sum(t_env: StreamTableEnvironment, table: Table, folder: Path) -> None:
    """Write the table to JSON files under `folder`, as part of the next job."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE sink (id BIGINT) WITH ('connector'='filesystem', "
        f"'path'='{folder.as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("sink", table)
    statements.attach_as_datastream()


def read_ids(folder: Path) -> list[int]:
    files = [path for path in folder.rglob("*part-*") if path.is_file()]
    return sorted(json.loads(line)["id"] for p in files for line in p.read_text().splitlines())


@pytest.mark.parametrize("unaligned", ["false", "true"])
def test_rows_and_barriers_before_the_master_listens_wait_and_none_is_lost(
    make_t_env: MakeEnvironment, tmp_path: Path, unaligned: str
) -> None:
    t_env = make_t_env(**CHECKPOINTS, execution_checkpointing_unaligned_enabled=unaligned)
    cluster = ScriptedCluster(t_env, tmp_path / "marks", am={"ends": 2, "listen_after_s": 1.5})
    rows = numbers(t_env, 20_000, per_second=10_000)
    out = cluster.add(parallelism=2, rows=rows, emits=True)
    assert out is not None
    sink_sum(t_env, out, tmp_path / "out")
    cluster.submit().wait(timeout_s=90, show_progress=False)
    assert read_ids(tmp_path / "out") == [*range(1, 20_001)]
    assert cluster.counts("barriers") > 0


def test_a_process_that_connects_late_gets_every_row(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**CHECKPOINTS)
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(rows=numbers(t_env, 50_000), connects_after_s=2)
    cluster.submit().wait(timeout_s=90, show_progress=False)
    assert cluster.counts("rows") == 50_000
    assert cluster.counts("total") == 50_000 * 50_001 // 2


def test_a_chained_role_needs_no_master(make_t_env: MakeEnvironment, tmp_path: Path) -> None:
    t_env = make_t_env(2, **CHECKPOINTS)
    cluster = ScriptedCluster(t_env, tmp_path / "marks", am=None)
    rows = numbers(t_env, 10_000, per_second=10_000)
    out = cluster.add(parallelism=2, rows=rows, emits=True)
    assert out is not None
    sink_sum(t_env, out, tmp_path / "out")
    client = cluster.flink.env.execute_async("chained")
    client.get_job_execution_result().result()
    assert read_ids(tmp_path / "out") == [*range(1, 10_001)]
    assert [each["master"] for each in cluster.starts("worker")] == [None, None]
    assert cluster.counts("barriers") > 0


def test_the_failure_of_a_chained_process_fails_its_task(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am=None)
    cluster.add(rows=numbers(t_env, 100_000), dies_at=500)
    client = cluster.flink.env.execute_async("chained")
    with pytest.raises(Py4JJavaError) as caught:
        client.get_job_execution_result().result()
    cause = cause_text(caught.value)
    assert "worker-0: exit code -9" in cause
    assert "Traceback of the script" in cause


def test_rows_behind_an_early_end_are_discarded(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(rows=numbers(t_env, 200_000), ends_at=1000)
    cluster.submit().wait(timeout_s=60, show_progress=False)
    assert 1000 <= cluster.counts("rows") < 2000


def test_a_lost_process_fails_the_task_even_if_the_master_never_does(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(rows=numbers(t_env, 100_000), dies_at=500)
    with pytest.raises(
        JobFailedError, match=r"(?s)worker-0: exit code -9.*Traceback of the script"
    ):
        cluster.submit().wait(timeout_s=60, show_progress=False)


def test_a_killed_process_goes_back_to_the_checkpoint_and_every_row_comes_out_once(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**CHECKPOINTS, **RETRIES)
    limits = TimeoutConfig(stop_timeout_s=0.5, stop_grace_s=0.5)
    marks = tmp_path / "marks"
    cluster = ScriptedCluster(t_env, marks, am={"ends": 2}, timeouts=limits)
    rows = numbers(t_env, 24_000, per_second=2000)
    out = cluster.add(parallelism=2, rows=rows, emits=True, dies_at=1500, dies_after_barriers=2)
    assert out is not None
    sink_sum(t_env, out, tmp_path / "out")
    cluster.submit().wait(timeout_s=90, show_progress=False)
    assert (marks / "died").exists()
    assert [each["deployment"] for each in cluster.starts("am")] == [0, 1]
    assert cluster.counts("rows") < 24_000
    assert read_ids(tmp_path / "out") == [*range(1, 24_001)]


def test_a_control_record_that_has_waited_behind_rows_brings_no_older_master_back(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(rows=numbers(t_env, 10_000), waits_at=100, asks=True)
    job = cluster.submit()

    def is_told(masters: int) -> bool:
        return len(cluster.masters_of("worker-0")) == masters

    until((tmp_path / "waits").exists)
    for known in (1, 2):
        until(partial(is_told, known))
        os.kill(cluster.masters_of("worker-0")[-1], signal.SIGKILL)
    until(partial(is_told, 3))
    (tmp_path / "go-on").touch()
    job.wait(timeout_s=60, show_progress=False)
    assert cluster.counts("rows") == 10_000
    told = cluster.masters_of("worker-0")
    assert len(told) == len(set(told)) == 3
    tokens = {each["token"] for each in cluster.controls("worker-0")}
    assert tokens == {each["token"] for each in cluster.starts("am")}


def test_whoever_asks_the_coordinator_through_flink_gets_no_token(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(rows=numbers(t_env, 1000), waits_at=100)
    job = cluster.submit()
    until((tmp_path / "waits").exists)
    requests = get_gateway().jvm.org.headrace.am.AmRequest
    answers = {}
    for kind in requests.Kind.values():
        for deployment in range(3):
            question = requests(kind, deployment)  # what REST hands to the same place
            asked = job._j_client.sendCoordinationRequest(job._am_uid, question)
            answers[kind.name(), deployment] = requests.text(asked.get())
    (tmp_path / "go-on").touch()
    job.wait(timeout_s=60, show_progress=False)
    (master,) = cluster.starts("am")
    assert json.loads(answers["MASTER", 0])["deployment"] == 0, (
        "it was told where the master is"
    )
    assert answers["MASTER", 1] == ""
    assert {key for key, text in answers.items() if master["token"] in text} == set()


def test_a_temporary_directory_with_a_long_name_is_no_obstacle_for_the_socket(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    long = tmp_path / ("long" * 30)
    t_env = make_t_env(io_tmp_dirs=str(long))
    cluster = ScriptedCluster(t_env, tmp_path / "marks", am={"ends": 1})
    cluster.add(rows=numbers(t_env, 1000))
    cluster.submit().wait(timeout_s=60, show_progress=False)
    assert cluster.counts("rows") == 1000
    (start,) = cluster.starts("worker")
    assert start["work_dir"].startswith(str(long))
    assert len(start["queue_socket"]) < 100
    assert not Path(start["queue_socket"]).parent.exists()


def test_cancel_with_a_full_queue_ends_within_5_s(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(rows=numbers(t_env, 10_000_000), hangs_at=100)
    job = cluster.submit()
    until(lambda: job.status().state == "RUNNING" and (tmp_path / "pid-worker-0").exists())
    until(is_waiting_for_a_slot)
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=20, show_progress=False)
    assert time.monotonic() - started_at < 5


def test_a_checkpoint_that_the_process_does_not_acknowledge_is_declined_and_the_job_goes_on(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**CHECKPOINTS)
    limits = TimeoutConfig(checkpoint_hold_timeout_s=0.3, stop_grace_s=0.5)
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1}, timeouts=limits)
    cluster.add(rows=numbers(t_env, 20_000, per_second=2000), acknowledges=False)
    log = Path(get_gateway().jvm.java.lang.System.getProperty("log.file"))
    begin = log.stat().st_size
    cluster.submit().wait(timeout_s=60, show_progress=False)
    assert cluster.counts("rows") == 20_000
    assert cluster.counts("barriers") > 1
    assert len(cluster.starts("am")) == 1
    # Flink keeps no order of a decline and an acknowledgement: the task must not send both.
    text = log.read_bytes()[begin:].decode(errors="replace")
    declined = set(
        re.findall(r"Checkpoint (\d+): the process .* The checkpoint is declined", text)
    )
    failed = re.findall(r"asynchronous part of checkpoint (\d+) could not be completed", text)
    assert declined
    assert declined <= set(failed)


@pytest.mark.parametrize("drain", [True, False])
def test_stop_with_savepoint_ends_the_job_and_its_processes(
    make_t_env: MakeEnvironment, tmp_path: Path, drain: bool
) -> None:
    t_env = make_t_env(**CHECKPOINTS)
    cluster = ScriptedCluster(t_env, tmp_path / "marks", am={"ends": 1})
    cluster.add(rows=numbers(t_env, 100_000, per_second=1000))
    client = cluster.flink.env.execute_async("stopped")
    marks = tmp_path / "marks"
    until(lambda: (marks / "pid-worker-0").exists())
    until(lambda: client.get_job_status().result().name == "RUNNING")
    format_type = (
        get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.CANONICAL
    )
    folder = (tmp_path / "savepoints").as_uri()
    stopped = client._j_job_client.stopWithSavepoint(drain, folder, format_type)
    assert stopped.get().startswith("file:")
    client.get_job_execution_result().result()
    if drain:
        assert (marks / "ended-worker-0").exists()
        assert cluster.counts("rows") > 0


def test_reports_and_row_counts_are_flink_metrics(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    t_env = make_t_env(rest_port=str(port), metrics_fetcher_update__interval="100 ms")
    cluster = ScriptedCluster(t_env, tmp_path, am={"ends": 1})
    cluster.add(rows=numbers(t_env, 10_000, per_second=1000), reports={"loss": 0.25})
    job = cluster.submit()
    url = f"http://localhost:{port}/jobs/{job.job_id}"
    until(lambda: _metric(url, "headrace.report.loss") == "0.25")
    until(lambda: float(_metric(url, "headrace.rows_in") or 0) > 0)
    assert float(_metric(url, "headrace.rows_discarded") or "nan") == 0
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=20, show_progress=False)


def _metric(job_url: str, name: str) -> str | None:
    """The value of a metric of subtask 0 of the role, None while Flink has none."""
    vertices = _get(job_url)["vertices"]
    vertex = next(each["id"] for each in vertices if "worker" in each["name"])
    url = f"{job_url}/vertices/{vertex}/subtasks/0/metrics"
    names = [each["id"] for each in _get(url) if each["id"].endswith(name)]
    return str(_get(f"{url}?get={names[0]}")[0]["value"]) if names else None


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as reply:
        return json.load(reply)
