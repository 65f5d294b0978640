"""Roles on the real mini-cluster, with real processes; content is checked."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import AMConfig, ExchangeConfig, RoleConfig, TimeoutConfig
from headrace.errors import JobFailedError, WaitTimeoutError
from headrace.operator import Cluster, chained_role
from tests.waiting import live_until_ended, until

from .conftest import MakeEnvironment
from .jvm import is_waiting_for_a_slot

IDENTITY = {"id": DataTypes.BIGINT(), "x": DataTypes.DOUBLE(), "s": DataTypes.STRING()}
_NOTICE_S = 3.0
"""What may pass over the limit of a time-out on a busy machine, until the job has ended."""


def numbers(t_env: StreamTableEnvironment, rows: int, name: str = "numbers") -> Table:
    """A bounded table of `rows` rows: id from 1, x, s."""
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE {name} (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='1', "
        f"'fields.id.end'='{rows}', 'rows-per-second'='100000000')"
    )
    return t_env.sql_query(
        f"SELECT id, CAST(id AS DOUBLE) / 2 AS x, 'row ' || CAST(id AS STRING) AS s FROM {name}"
    )


def file_sink(t_env: StreamTableEnvironment, path: Path, columns: str) -> None:
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE results ({columns}) WITH ('connector'='filesystem', "
        f"'path'='{path.as_uri()}', 'format'='json')"
    )


def read_json(path: Path) -> list[dict[str, Any]]:
    files = [p for p in path.rglob("part-*") if p.is_file()]
    return [json.loads(line) for p in files for line in p.read_text().splitlines()]


@pytest.mark.parametrize("parallelism", [1, 2])
@pytest.mark.parametrize("rows", [1, 4096, 10_007])
def test_every_row_goes_through_a_worker_and_comes_back(
    make_t_env: MakeEnvironment, tmp_path: Path, rows: int, parallelism: int
) -> None:
    t_env = make_t_env(parallelism)

    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=100):
            ctx.emit(batch)

    cluster = Cluster(t_env, name="identity")
    cluster.add_am_role()
    out = cluster.add_role(
        "worker",
        RoleConfig(entry=entry, parallelism=parallelism),
        input=numbers(t_env, rows),
        output=IDENTITY,
    )
    file_sink(t_env, tmp_path / "out", "id BIGINT, x DOUBLE, s STRING")
    statements = t_env.create_statement_set()
    assert isinstance(out, Table)
    statements.add_insert("results", out)
    result = cluster.submit(statements).wait(timeout_s=100)
    got = sorted(read_json(tmp_path / "out"), key=lambda row: row["id"])
    assert got == [{"id": i, "x": i / 2, "s": f"row {i}"} for i in range(1, rows + 1)]
    assert result.status.rows_in == rows


def test_a_chained_role_needs_no_master_and_gives_back_every_row(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(2)

    def entry(ctx: Any) -> None:
        for batch in ctx.batches(rows=500):
            ctx.emit({"id": batch["id"], "double": batch["id"] * 2})

    doubled = chained_role(
        "double",
        RoleConfig(entry=entry, parallelism=2),
        input=numbers(t_env, 10_007),
        output={"id": DataTypes.BIGINT(), "double": DataTypes.BIGINT()},
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE results (id BIGINT, `double` BIGINT) WITH "
        f"('connector'='filesystem', 'path'='{tmp_path.as_uri()}', 'format'='json')"
    )
    doubled.execute_insert("results").wait()
    got = sorted(read_json(tmp_path), key=lambda row: row["id"])
    assert got == [{"id": i, "double": 2 * i} for i in range(1, 10_008)]


def test_a_chained_role_that_fails_fails_the_job_with_its_traceback(
    t_env: StreamTableEnvironment,
) -> None:
    def entry(ctx: Any) -> None:
        msg = "no model here"
        raise LookupError(msg)

    scored = chained_role(
        "score",
        RoleConfig(entry=entry),
        input=numbers(t_env, 10),
        output={"id": DataTypes.BIGINT()},
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE blackhole (id BIGINT) WITH ('connector'='blackhole')"
    )
    with pytest.raises(Py4JJavaError, match="LookupError: no model here"):
        scored.execute_insert("blackhole").wait()


def test_source_roles_run_without_input_and_report_to_the_result(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        ctx.report(answer=42.0 + ctx.index)
        path = Path(folder) / f"{ctx.role}-{ctx.index}"
        path.write_text(f"{ctx.parallelism} {ctx.attempt} {sorted(ctx.cluster)}")

    cluster = Cluster(t_env, name="sources")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry, parallelism=2))
    cluster.add_role("helper", RoleConfig(entry=entry))
    result = cluster.submit().wait(timeout_s=100)
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {
        "worker-0": "2 1 ['helper', 'worker']",
        "worker-1": "2 1 ['helper', 'worker']",
        "helper-0": "1 1 ['helper', 'worker']",
    }
    assert result.status.state == "FINISHED"
    assert result.status.nodes["worker-1"].report == {"answer": 43.0}


def test_an_entry_that_returns_early_does_not_block_its_upstream(
    t_env: StreamTableEnvironment,
) -> None:
    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=10):
            ctx.report(first=float(batch.column("id")[0].as_py()))
            return

    cluster = Cluster(t_env, name="early")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry), input=numbers(t_env, 1_000_000))
    result = cluster.submit().wait(timeout_s=100)
    assert result.status.nodes["worker-0"].report == {"first": 1.0}


@pytest.mark.parametrize("rows_per_second", [500, 1_000_000])
def test_a_worker_may_end_the_job_although_its_input_goes_on_for_ever(
    make_t_env: MakeEnvironment, rows_per_second: int
) -> None:
    t_env = make_t_env(2)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE endless (id BIGINT) WITH ('connector'='datagen', "
        f"'rows-per-second'='{rows_per_second}')"
    )

    def entry(ctx: Any) -> None:
        rows = 0
        for batch in ctx.batches(rows=50):
            rows += len(batch["id"])
            ctx.report(rows=rows)
            if ctx.index == 0 and rows >= 200:
                ctx.stop_job("seen enough")

    cluster = Cluster(t_env, name="endless")
    cluster.add_am_role()
    worker = RoleConfig(entry=entry, parallelism=2, exchange=ExchangeConfig(slots=2))
    cluster.add_role("worker", worker, input=t_env.from_path("endless"))
    result = cluster.submit().wait(timeout_s=60)
    assert result.status.state == "FINISHED"
    assert result.status.reason is not None
    assert "seen enough" in result.status.reason
    nodes = result.status.nodes
    assert nodes["worker-0"].report["rows"] >= 200
    assert sum(node.rows_in for node in nodes.values()) == result.status.rows_in
    for node in nodes.values():  # the stop may come between a batch and its report
        assert node.rows_in - node.report.get("rows", 0) in (0, 50)


def test_a_wait_that_times_out_leaves_the_running_job_its_checkpoints(
    make_t_env: MakeEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # no other test makes any there
    t_env = make_t_env(execution_checkpointing_interval="200 ms")
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE slow (id BIGINT) WITH ('connector'='datagen', "
        "'rows-per-second'='100')"
    )

    def entry(ctx: Any) -> None:
        for _ in ctx.batches(rows=10):
            pass

    cluster = Cluster(t_env, name="goes-on")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry), input=t_env.from_path("slow"))
    job = cluster.submit()
    with pytest.raises(WaitTimeoutError):
        job.wait(timeout_s=1)
    assert list(tmp_path.glob("headrace-drain-*"))
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=30)
    assert not list(tmp_path.glob("headrace-drain-*"))


def test_a_user_error_fails_the_job_with_its_traceback(t_env: StreamTableEnvironment) -> None:
    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=10):
            msg = f"cannot learn from {batch.num_rows} rows"
            raise ValueError(msg)

    cluster = Cluster(t_env, name="raises")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry), input=numbers(t_env, 1000))
    with pytest.raises(JobFailedError) as caught:
        cluster.submit().wait(timeout_s=100)
    assert "worker-0" in caught.value.cause
    assert "ValueError: cannot learn from 10 rows" in caught.value.cause
    assert "in entry" in caught.value.cause


def test_a_batch_worker_that_fails_twice_succeeds_at_the_third_attempt(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        (Path(folder) / f"{ctx.index}-{ctx.attempt}").touch()
        if ctx.index == 0 and ctx.attempt < 3:
            msg = "not yet"
            raise RuntimeError(msg)

    cluster = Cluster(t_env, name="retries")
    cluster.add_am_role(AMConfig(max_restarts=2))
    cluster.add_role("worker", RoleConfig(entry=entry, parallelism=2))
    result = cluster.submit().wait(timeout_s=100)
    assert {"0-1", "0-2", "0-3"} <= {p.name for p in tmp_path.iterdir()}
    assert result.status.attempt == 3
    assert result.status.restarts == 2


def test_a_batch_worker_that_always_fails_ends_the_job_after_max_restarts(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        (Path(folder) / str(ctx.attempt)).touch()
        msg = f"attempt {ctx.attempt} is no better"
        raise RuntimeError(msg)

    cluster = Cluster(t_env, name="hopeless")
    cluster.add_am_role(AMConfig(max_restarts=1))
    cluster.add_role("worker", RoleConfig(entry=entry))
    parts = r"(?s)(?=.*in entry\n)(?=.*`am\.max_restarts`).*attempt 2 is no better"
    with pytest.raises(JobFailedError, match=parts):
        cluster.submit().wait(timeout_s=100)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["1", "2"]


def test_a_worker_killed_in_stream_mode_is_named_with_its_signal(
    t_env: StreamTableEnvironment,
) -> None:
    def entry(ctx: Any) -> None:
        import os
        import signal

        for _ in ctx.arrow_batches(rows=10):
            os.kill(os.getpid(), signal.SIGKILL)

    cluster = Cluster(t_env, name="killed")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry), input=numbers(t_env, 1000))
    with pytest.raises(JobFailedError, match=r"(?s)worker-0.*SIGKILL"):
        cluster.submit().wait(timeout_s=100)


def test_a_missing_module_fails_at_once_although_restarts_are_left(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)
    t_env = make_t_env(
        restart__strategy_type="fixed-delay", restart__strategy_fixed__delay_attempts="50"
    )

    def entry(ctx: Any) -> None:
        (Path(folder) / f"attempt-{ctx.attempt}").touch()
        import no_such_module  # type: ignore[import-not-found] # noqa: F401

    cluster = Cluster(t_env, name="missing")
    cluster.add_am_role()
    cluster.add_role("worker", RoleConfig(entry=entry), input=numbers(t_env, 10))
    with pytest.raises(JobFailedError, match="No module named 'no_such_module'"):
        cluster.submit().wait(timeout_s=100)
    assert [path.name for path in tmp_path.glob("attempt-*")] == ["attempt-1"]


def test_cancel_while_the_queue_is_full_ends_within_5_s(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    marker = str(tmp_path / "started")

    def entry(ctx: Any) -> None:
        Path(marker).touch()
        live_until_ended()

    cluster = Cluster(t_env, name="stuck")
    cluster.add_am_role()
    cluster.add_role(
        "worker",
        RoleConfig(entry=entry, exchange=ExchangeConfig(slots=2, slot_bytes=65_536)),
        input=numbers(t_env, 10_000_000),
    )
    job = cluster.submit()
    until(Path(marker).exists)
    until(is_waiting_for_a_slot)
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=30)
    assert time.monotonic() - started_at < 5


def test_checkpoints_complete_while_rows_flow_and_no_row_is_lost(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(
        2,
        execution_checkpointing_interval="200 ms",
        execution_checkpointing_dir=(tmp_path / "checkpoints").as_uri(),
    )
    rows = 400_000

    def entry(ctx: Any) -> None:
        total = 0
        for batch in ctx.arrow_batches(rows=1000):
            total += sum(batch.column("id").to_pylist())
        ctx.report(total=float(total))

    cluster = Cluster(t_env, name="checkpoints")
    cluster.add_am_role()
    cluster.add_role(
        "worker", RoleConfig(entry=entry, parallelism=2), input=numbers(t_env, rows)
    )
    result = cluster.submit().wait(timeout_s=100)
    total = sum(node.report["total"] for node in result.status.nodes.values())
    assert total == rows * (rows + 1) / 2
    assert result.status.rows_in == rows


def test_too_few_slots_fail_within_the_gather_time_out_and_name_need_and_offer(
    make_t_env: MakeEnvironment,
) -> None:
    t_env = make_t_env(taskmanager_numberOfTaskSlots="1")

    def entry(ctx: Any) -> None:
        return None

    cluster = Cluster(t_env, name="slots")
    limits = TimeoutConfig(gather_timeout_s=5)
    cluster.add_am_role(AMConfig(timeouts=limits))
    cluster.add_role("worker", RoleConfig(entry=entry, parallelism=3))
    job = cluster.submit()
    submitted_at = time.monotonic()
    with pytest.raises(
        JobFailedError,
        match=r"(?s)gather_timeout_s.*Needed: 3 task slots.*Offered: 1 TaskManager",
    ):
        job.wait(timeout_s=60)
    assert time.monotonic() - submitted_at < limits.gather_timeout_s + _NOTICE_S
