"""The state of a process in Flink's checkpoints: exact after kills, savepoints and aborts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, StreamTableEnvironment, Table

import headrace.pytorch
from headrace import Cluster, RoleConfig
from headrace.config import ExchangeConfig
from headrace.errors import JobFailedError
from headrace.operator import JobHandle
from tests.waiting import until

from .checkpoint_history import CheckpointHistory
from .conftest import MakeEnvironment
from .kept_state import (
    STATE_FILE,
    Killer,
    be_slow_once,
    count_files_before_a_checkpoint,
    count_rows,
    expected_counts,
    hold,
    train_on_rows,
    trained_on,
    watch_files,
)
from .system import descendants, open_files
from .test_operator_rows import CHECKPOINTS, numbers

RETRIES = {
    "restart__strategy_type": "fixed-delay",
    "restart__strategy_fixed__delay_attempts": "5",
    "restart__strategy_fixed__delay_delay": "100 ms",
}
# Few rows are under way, so that a barrier does not wait behind all of them: see `wide_rows`.
NARROW = {
    "taskmanager_memory_segment__size": "4kb",
    "taskmanager_network_memory_buffers__per__channel": "2",
    "taskmanager_network_memory_floating__buffers__per__gate": "2",
}
SMALL = ExchangeConfig(batch_rows=16, slots=2)
COUNTS = {
    "id": DataTypes.BIGINT(),
    "count": DataTypes.BIGINT(),
    "checksum": DataTypes.BIGINT(),
}
LIMIT_S = 100


def wide_rows(t_env: StreamTableEnvironment, rows: int, per_second: int = 100_000) -> Table:
    """The numbers from 1 on, each in a row of a kilobyte; the planner sees that they end."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        f"'number-of-rows'='{rows}', 'fields.id.kind'='sequence', 'fields.id.start'='1', "
        f"'fields.id.end'='{rows}', 'rows-per-second'='{per_second}')"
    )
    return t_env.sql_query("SELECT id, REPEAT('x', 1000) AS padding FROM numbers")


def in_dir(folder: Path) -> dict[str, str]:
    return {"execution_checkpointing_dir": folder.as_uri()}


def submit(
    t_env: StreamTableEnvironment,
    entry: Any,
    *,
    rows: int,
    per_second: int,
    out: Path | None = None,
    workers: int = 1,
) -> JobHandle:
    """Submit a job; what its workers emit goes to files of a transactional sink."""
    cluster = Cluster(t_env, name="kept")
    cluster.add_am_role()
    given = wide_rows(t_env, rows, per_second)
    output = cluster.add_role(
        "worker",
        RoleConfig(entry=entry, exchange=SMALL, parallelism=workers),
        input=given,
        output=None if out is None else COUNTS,
    )
    if out is None:
        return cluster.submit()
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE counted (id BIGINT, `count` BIGINT, checksum BIGINT) WITH "
        f"('connector'='filesystem', 'path'='{out.as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("counted", output)
    return cluster.submit(statements)


def counted(out: Path) -> list[tuple[int, int, int]]:
    files = [p for p in out.rglob("*part-*") if p.is_file() and not p.name.startswith(".")]
    found = [json.loads(line) for p in files for line in p.read_text().splitlines()]
    return sorted((each["id"], each["count"], each["checksum"]) for each in found)


def report_of(job: JobHandle) -> Any:
    result = job.wait(timeout_s=LIMIT_S, show_progress=False)
    return result.status.nodes["worker-0"].report


def test_counts_are_exact_although_the_process_is_killed_again_and_again(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    rows, deaths = 8_000, 3
    t_env = make_t_env(**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp"))
    killer = Killer(tmp_path, tmp_path / "cp", deaths)
    job = submit(t_env, count_rows(killer), rows=rows, per_second=100_000, out=tmp_path / "out")
    assert report_of(job)["count"] == rows
    assert len(list(tmp_path.glob("death-*"))) == deaths
    assert counted(tmp_path / "out") == expected_counts(rows)


def test_a_training_that_is_killed_twice_ends_with_the_bits_of_an_undisturbed_one(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """With Flink's options as they are where nobody has set them: it is restarted."""
    rows, deaths = 3_000, 2
    t_env = make_t_env(
        execution_checkpointing_interval="100 ms", **NARROW, **in_dir(tmp_path / "cp")
    )
    plan = headrace.pytorch.train(
        wide_rows(t_env, rows),
        train_on_rows(Killer(tmp_path, tmp_path / "cp", deaths)),
        exchange=SMALL,
        output_dir=tmp_path / "trained",
        name="trained",
    )
    assert report_of(plan.submit())["steps"] == rows
    assert len(list(tmp_path.glob("death-*"))) == deaths
    trained = torch.load(tmp_path / "trained" / "model.pt")
    for name, value in trained_on(rows).items():
        assert torch.equal(trained[name], value), name


def test_another_job_goes_on_from_a_savepoint(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    rows = 12_000
    out = tmp_path / "out"
    first = submit(
        make_t_env(**CHECKPOINTS, **in_dir(tmp_path / "cp")),
        count_rows(),
        rows=rows,
        per_second=300,
        out=out,
    )
    until(lambda: _count(first) > 2_000, "rows")
    j_format = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.CANONICAL
    folder = (tmp_path / "savepoints").as_uri()
    savepoint = first._j_client.stopWithSavepoint(False, folder, j_format).get()
    assert 2_000 < report_of(first)["count"] < rows

    t_env = make_t_env(**CHECKPOINTS, execution_state__recovery_path=savepoint)
    second = submit(t_env, count_rows(), rows=rows, per_second=20_000, out=out)
    assert report_of(second)["count"] == rows
    assert counted(out) == expected_counts(rows)


def _count(job: JobHandle) -> float:
    nodes = job.status().nodes
    return nodes["worker-0"].report.get("count", 0.0) if nodes else 0.0


def test_a_large_state_needs_no_directory_on_the_embedded_cluster(
    make_t_env: MakeEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # no other test makes any there
    rows = 4_000
    t_env = make_t_env(**CHECKPOINTS, **RETRIES, **NARROW)
    size_bytes = 20 << 20
    cluster = Cluster(t_env, name="kept")
    cluster.add_am_role()
    given = wide_rows(t_env, rows)
    place = str(tmp_path / "place")

    class Local(Killer):
        """Learns where the checkpoints are once the job runs."""

        def begin(self) -> None:
            until(lambda: Path(place).exists())
            self.checkpoints = Path(place).read_text()
            super().begin()

    local = Local(tmp_path, tmp_path, 1)
    cluster.add_role(
        "worker", RoleConfig(entry=hold(size_bytes, local), exchange=SMALL), input=given
    )
    job = cluster.submit()
    (made,) = tmp_path.glob("headrace-checkpoints-*")
    Path(place).write_text(str(made))
    report = report_of(job)
    assert (report["rows"], report["wrong"]) == (rows, 0)
    assert (tmp_path / "death-0").exists()
    assert not list(tmp_path.glob("headrace-checkpoints-*"))


def test_a_state_is_restored_from_a_directory_that_only_flink_can_read(
    make_t_env: MakeEnvironment, tmp_path: Path, shelf: str
) -> None:
    rows, size_bytes, folder = 4_000, 2 << 20, tmp_path / "cp"
    place = {"execution_checkpointing_dir": f"{shelf}{folder}"}
    t_env = make_t_env(**CHECKPOINTS, **RETRIES, **NARROW, **place)
    job = submit(
        t_env, hold(size_bytes, Killer(tmp_path, folder, 1)), rows=rows, per_second=100_000
    )
    until(lambda: max(sizes_in(folder), default=0) > size_bytes, "a file of the state there")
    report = report_of(job)
    assert (report["rows"], report["wrong"]) == (rows, 0)
    assert (tmp_path / "death-0").exists()


def sizes_in(folder: Path) -> Iterator[int]:
    """Sizes of the files of the checkpoints that are there; they come and go."""
    for path in folder.glob("*/chk-*/*"):
        with suppress(FileNotFoundError):
            yield path.stat().st_size


def test_a_state_that_the_jobmanager_does_not_take_fails_at_once_with_the_setting(
    make_t_env: MakeEnvironment,
) -> None:
    t_env = make_t_env(**CHECKPOINTS, **RETRIES, execution_checkpointing_storage="jobmanager")
    job = submit(t_env, hold(6 << 20, None), rows=100_000, per_second=1_000)
    with pytest.raises(JobFailedError) as caught:
        job.wait(timeout_s=LIMIT_S, show_progress=False)
    assert "`execution.checkpointing.dir`" in caught.value.cause
    assert "worker-0" in caught.value.cause
    assert "5242880 bytes" in caught.value.cause


def test_an_aborted_checkpoint_harms_nothing(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    rows = 8_000
    history = CheckpointHistory()
    t_env = make_t_env(
        **CHECKPOINTS,
        **in_dir(tmp_path / "cp"),
        **history.options,
        execution_checkpointing_timeout="500 ms",
        restart__strategy_type="none",
    )
    job = submit(t_env, be_slow_once(tmp_path, 2.5), rows=rows, per_second=1_000)
    assert "expired" in history.await_recovery(job, limit_s=LIMIT_S)
    assert report_of(job)["rows"] == rows
    assert (tmp_path / "slow").exists()


@pytest.mark.parametrize("interval", ["10 min", None])
def test_memory_for_the_first_state_is_there_before_the_first_checkpoint_and_only_for_one(
    make_t_env: MakeEnvironment, tmp_path: Path, interval: str | None
) -> None:
    options = {} if interval is None else {"execution_checkpointing_interval": interval}
    t_env = make_t_env(**options, **in_dir(tmp_path / "cp"))
    entry = count_files_before_a_checkpoint(8 << 20)
    job = submit(t_env, entry, rows=1_000, per_second=1_000)
    assert report_of(job) == {"files": 1 if interval else 0}


def test_fifty_checkpoints_leave_no_file_open(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    (jvm,) = (each for each in descendants(os.getpid()) if each.is_jvm)
    options = {**CHECKPOINTS, "execution_checkpointing_interval": "20 ms"}
    t_env = make_t_env(**options, **in_dir(tmp_path / "cp"))
    cluster = Cluster(t_env, name="kept")
    cluster.add_am_role()
    # The planner does not see that it ends. Few: the source keeps all of them in its state.
    endless = numbers(t_env, 20_000, per_second=200)
    entry = watch_files(tmp_path / "cp", 50)
    cluster.add_role("worker", RoleConfig(entry=entry, exchange=SMALL), input=endless)
    job = cluster.submit()
    most = 0

    def is_over() -> bool:
        nonlocal most
        most = max(most, sum(STATE_FILE in name for name in open_files(jvm.pid)))
        return jobs_end.done()

    with ThreadPoolExecutor(1) as pool:
        jobs_end = pool.submit(report_of, job)
        until(is_over, "end of the job", LIMIT_S)
        report = jobs_end.result()
    assert report["checkpoints"] >= 50
    assert 1 <= report["most"] <= 3
    assert report["files"] <= report["first"] + 3
    assert most <= 3
    assert not [name for name in open_files(jvm.pid) if STATE_FILE in name]
