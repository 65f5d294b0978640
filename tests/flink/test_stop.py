"""Jobs that are stopped with a savepoint, and jobs that go on from it."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest

import headrace.operator.handle
from headrace import Cluster, RoleConfig
from headrace.config import AMConfig, ExchangeConfig, TimeoutConfig
from headrace.errors import StopError, UsageError, WaitTimeoutError
from headrace.operator import JobHandle
from headrace.operator.stop import has_ended, hold, state_of
from tests.waiting import pause_for, until

from .conftest import MakeEnvironment
from .kept_state import count_rows, expected_counts
from .test_kept_state import (
    LIMIT_S,
    NARROW,
    RETRIES,
    SMALL,
    counted,
    in_dir,
    report_of,
    submit,
    wide_rows,
)
from .test_operator_rows import CHECKPOINTS


def reported(job: JobHandle, name: str) -> float:
    nodes = job.status().nodes
    return nodes["worker-0"].report.get(name, 0.0) if nodes else 0.0


def require_more_rows(job: JobHandle, rows: float) -> None:
    until(lambda: reported(job, "count") > rows, "more rows")


def require_complete(savepoint: str | None, folder: Path) -> str:
    """The savepoint is below the folder that was named, and Flink could read it."""
    assert savepoint is not None
    path = Path(urlparse(savepoint).path)
    assert path.parent == folder
    assert (path / "_metadata").stat().st_size > 0
    return savepoint


@pytest.mark.parametrize("drain", [True, False])
def test_a_job_goes_on_from_the_savepoint_of_its_stop_with_every_row_once(
    make_t_env: MakeEnvironment, tmp_path: Path, drain: bool
) -> None:
    rows, out = 12_000, tmp_path / "out"
    options = {**CHECKPOINTS, **NARROW, **in_dir(tmp_path / "cp")}
    first = submit(make_t_env(**options), count_rows(), rows=rows, per_second=300, out=out)
    until(lambda: reported(first, "count") > 2_000, "rows")
    result = first.stop(tmp_path / "saved", drain=drain, timeout_s=LIMIT_S)
    savepoint = require_complete(result.savepoint, tmp_path / "saved")
    done = result.status.nodes["worker-0"].report["count"]
    assert 2_000 < done < rows
    assert len(counted(out)) == done if drain else len(counted(out)) <= done

    t_env = make_t_env(**options, execution_state__recovery_path=savepoint)
    second = submit(t_env, count_rows(), rows=rows, per_second=20_000, out=out)
    assert report_of(second)["count"] == rows
    assert counted(out) == expected_counts(rows)


def test_a_job_goes_on_where_no_savepoint_can_be_made(
    make_t_env: MakeEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    t_env = make_t_env(**CHECKPOINTS, **in_dir(tmp_path / "cp"), restart__strategy_type="none")
    out = tmp_path / "out"
    job = submit(t_env, count_rows(), rows=1_000_000, per_second=1_000, out=out)
    until(lambda: reported(job, "count") > 0, "rows")
    (tmp_path / "file").touch()
    for bad, told in (
        (tmp_path / "file" / "below", str(tmp_path / "file")),
        ("nowhere://host/saved", "UnsupportedFileSystemScheme"),
    ):
        before = reported(job, "count")
        with pytest.raises(StopError) as caught:
            job.stop(bad, timeout_s=LIMIT_S)
        assert caught.value.job_state == "RUNNING"
        assert caught.value.savepoint is None
        assert "it goes on (RUNNING)" in str(caught.value)
        assert told in caught.value.cause
        require_more_rows(job, before + 500)
    with monkeypatch.context() as untold:
        untold.setattr(headrace.operator.handle, "state_of", lambda _: None)
        with pytest.raises(WaitTimeoutError, match=r"timeout_s of stop\(\)"):
            job.stop(tmp_path / "file" / "below", timeout_s=3)
    (tmp_path / "file").unlink()  # another order would be carried out
    with pytest.raises(StopError, match=r"it goes on \(RUNNING\)") as caught:
        job.stop(tmp_path / "file" / "below", timeout_s=LIMIT_S)
    assert str(tmp_path / "file") in caught.value.cause
    with pytest.raises(WaitTimeoutError, match=r"timeout_s of stop\(\)"):
        job.stop(tmp_path / "saved", timeout_s=0.0)
    with pytest.raises(UsageError, match=r"is being stopped with a savepoint in file:.*saved"):
        job.stop(tmp_path / "elsewhere", timeout_s=LIMIT_S)
    again = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    require_complete(again.savepoint, tmp_path / "saved")
    assert job.wait(timeout_s=LIMIT_S) == again, "the savepoint is remembered"
    assert len(list((tmp_path / "saved").iterdir())) == 1
    with pytest.raises(StopError, match="has ended by itself"):
        job.stop(tmp_path / "late", timeout_s=LIMIT_S)
    assert not (tmp_path / "late").exists()


def test_a_stop_in_which_the_process_dies_is_told_and_the_job_goes_on(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    rows, out, mark = 1_000_000, tmp_path / "out", str(tmp_path / "death")
    count = count_rows()

    def entry(ctx: Any) -> None:
        count(ctx)
        if not Path(mark).exists():  # all rows of the drain were handled
            Path(mark).touch()
            os.kill(os.getpid(), signal.SIGKILL)

    t_env = make_t_env(**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp"))
    job = submit(t_env, entry, rows=rows, per_second=1_000, out=out)
    until(lambda: reported(job, "count") > 500, "rows")
    with pytest.raises(StopError, match="it goes on") as caught:
        job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    assert Path(mark).exists()
    assert caught.value.savepoint is None
    until(lambda: job.status().attempt > 1 and reported(job, "count") > 2_000, "a new attempt")
    result = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    require_complete(result.savepoint, tmp_path / "saved")
    done = int(result.status.nodes["worker-0"].report["count"])
    assert counted(out) == expected_counts(done)


def test_a_worker_that_has_seen_enough_stops_an_endless_job_with_a_savepoint(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        ctx.state.setdefault("rows", 0)
        ctx.report(before=ctx.state["rows"])
        for batch in ctx.batches(rows=16):
            ctx.state["rows"] += len(batch["id"])
            ctx.report(rows=ctx.state["rows"])
            if ctx.state["rows"] >= 1_000 * ctx.attempt:
                ctx.stop_job("seen enough", savepoint=True)
        ctx.report(ended=1)

    def start(**options: str) -> JobHandle:
        t_env = make_t_env(**CHECKPOINTS, **in_dir(tmp_path / "cp"), **options)
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE endless (id BIGINT) WITH ('connector'='datagen', "
            "'rows-per-second'='1000')"
        )
        cluster = Cluster(t_env, name="early")
        cluster.add_am_role()
        worker = RoleConfig(entry=entry, exchange=SMALL)
        cluster.add_role("worker", worker, input=t_env.from_path("endless"))
        return cluster.submit()

    job = start()
    with pytest.raises(UsageError, match=r"worker-0 asked to stop: seen enough, with a "):
        job.wait(timeout_s=LIMIT_S)
    result = job.wait(timeout_s=LIMIT_S, savepoint=tmp_path / "saved")
    savepoint = require_complete(result.savepoint, tmp_path / "saved")
    report = result.status.nodes["worker-0"].report
    assert report["ended"] == 1, "the loop has ended by itself"
    assert report["rows"] == result.status.rows_in >= 1_000

    place = {"execution_checkpointing_savepoint__dir": (tmp_path / "again").as_uri()}
    second = start(execution_state__recovery_path=savepoint, **place)
    result = second.wait(timeout_s=LIMIT_S)
    require_complete(result.savepoint, tmp_path / "again")
    assert result.status.nodes["worker-0"].report["before"] == report["rows"]


def test_a_wish_is_not_granted_to_the_attempt_behind_the_one_that_had_it(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """Not while Flink waits before the restart either, when the status is still the old one."""
    rows, leave = 2_000, str(tmp_path / "leave")

    def entry(ctx: Any) -> None:
        ctx.state.setdefault("rows", 0)
        for batch in ctx.batches(rows=16):
            ctx.state["rows"] += len(batch["id"])
            ctx.report(rows=ctx.state["rows"])
            if ctx.attempt == 1 and ctx.state["rows"] > 100:
                ctx.stop_job("seen enough", savepoint=True)
                until(Path(leave).exists, "leave to die", LIMIT_S)
                os.kill(os.getpid(), signal.SIGKILL)

    late = {**RETRIES, "restart__strategy_fixed__delay_delay": "5 s"}
    t_env = make_t_env(
        execution_checkpointing_interval="10 min", **late, **NARROW, **in_dir(tmp_path / "cp")
    )
    cluster = Cluster(t_env, name="early")
    cluster.add_am_role()
    given = wide_rows(t_env, rows, 2_000)
    cluster.add_role("worker", RoleConfig(entry=entry, exchange=SMALL), input=given)
    job = cluster.submit()
    until(lambda: job.status().savepoint_wish is not None, "the wish")
    Path(leave).touch()
    until(lambda: state_of(job._client) == "RESTARTING", "the failure")
    assert job.status().savepoint_wish is not None, "what makes it hard"
    result = job.wait(timeout_s=LIMIT_S, savepoint=tmp_path / "saved")
    assert (result.status.attempt, result.savepoint) == (2, None)
    assert result.status.nodes["worker-0"].report["rows"] == rows
    assert result.status.savepoint_wish is None


def test_a_stop_keeps_a_job_from_ending_by_itself_before_its_savepoint(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    mark = str(tmp_path / "end")

    def entry(ctx: Any) -> None:
        ctx.state["rows"] = 0
        for batch in ctx.batches(rows=16):
            ctx.state["rows"] += len(batch["id"])
            ctx.report(rows=ctx.state["rows"])
            if Path(mark).exists():
                break

    t_env = make_t_env(**CHECKPOINTS, **in_dir(tmp_path / "cp"))
    cluster = Cluster(t_env, name="early")
    cluster.add_am_role()
    given = wide_rows(t_env, 1_000_000, 1_000)
    cluster.add_role("worker", RoleConfig(entry=entry, exchange=SMALL), input=given)
    job = cluster.submit()
    until(lambda: reported(job, "rows") > 0, "rows")
    assert hold(job._j_client, job._am_uid) == 0.0
    Path(mark).touch()
    until(lambda: job.status().state == "FINISHED")
    with pytest.raises(WaitTimeoutError):
        job.wait(timeout_s=2, show_progress=False)
    result = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    require_complete(result.savepoint, tmp_path / "saved")


def test_a_drain_waits_for_a_process_that_goes_on_with_its_rows(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        rows = 0
        for batch in ctx.batches(rows=16):
            rows += len(batch["id"])
            ctx.report(rows=rows)
            pause_for(0.2)

    t_env = make_t_env(
        execution_checkpointing_interval="10 min", **NARROW, **in_dir(tmp_path / "cp")
    )
    cluster = Cluster(t_env, name="slow")
    cluster.add_am_role(
        AMConfig(timeouts=TimeoutConfig(stop_timeout_s=3, heartbeat_every_s=0.2))
    )
    given = wide_rows(t_env, 1_000_000, 1_000)
    exchange = ExchangeConfig(batch_rows=16, slots=20)
    cluster.add_role("worker", RoleConfig(entry=entry, exchange=exchange), input=given)
    job = cluster.submit()
    until(lambda: reported(job, "rows") > 100, "rows")
    begin = time.monotonic()
    result = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    assert time.monotonic() - begin > 4, "longer than the limit without progress"
    require_complete(result.savepoint, tmp_path / "saved")


def test_a_function_that_does_not_end_in_time_is_named(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        for batch in ctx.batches(rows=16):
            ctx.report(count=len(batch["id"]))
        pause_for(60)

    t_env = make_t_env(**CHECKPOINTS, **in_dir(tmp_path / "cp"))
    cluster = Cluster(t_env, name="slow")
    cluster.add_am_role(AMConfig(timeouts=TimeoutConfig(stop_timeout_s=1, stop_grace_s=0.5)))
    given = wide_rows(t_env, 1_000_000, 1_000)
    cluster.add_role("worker", RoleConfig(entry=entry, exchange=SMALL), input=given)
    job = cluster.submit()
    until(lambda: reported(job, "count") > 0, "rows")
    with pytest.raises(WaitTimeoutError, match=r"timeout_s of stop\(\)"):
        job.stop(tmp_path / "saved", timeout_s=0.0)
    until(lambda: has_ended(job._j_client.getJobExecutionResult(), 0), "the job's end")
    for again in (job.wait, partial(job.stop, tmp_path / "saved")):
        with pytest.raises(StopError, match=r"worker-0 had to be .*stop_timeout_s") as caught:
            again(timeout_s=LIMIT_S)
        require_complete(caught.value.savepoint, tmp_path / "saved")
