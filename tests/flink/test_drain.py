"""Drains that wait for those that get on, and stops of jobs that end in their own way."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

import headrace.operator.handle
import headrace.operator.stop
from headrace import Cluster, RoleConfig
from headrace.config import AMConfig, TimeoutConfig
from headrace.errors import JobFailedError, StopError, WaitTimeoutError
from headrace.framework.stopping import StopRequestedExit
from headrace.operator import JobHandle
from headrace.operator.drain import Drain
from headrace.operator.environment import open_environment
from headrace.operator.local_checkpoints import LocalCheckpoints
from headrace.operator.stop import SavepointStop, has_ended, savepoint_uri, state_of
from headrace.role import RoleContext, RoleEntry
from tests.waiting import always, pause_for, until

from .checkpoint_history import CheckpointHistory
from .conftest import MakeEnvironment
from .test_kept_state import LIMIT_S, NARROW, SMALL, in_dir, wide_rows
from .test_stop import require_complete

HASTY = TimeoutConfig(stop_timeout_s=2, stop_grace_s=0.5, heartbeat_every_s=0.2)
CLOSING_S = HASTY.stop_timeout_s + HASTY.stop_grace_s + 5
RARELY = {"execution_checkpointing_interval": "10 min"}
_STREAM_ENDS_S = 1.0  # behind the status that says it; who holds it before that keeps it open


def submit(
    t_env: StreamTableEnvironment,
    entry: Any,
    *,
    rows: int = 1_000_000,
    workers: int = 1,
    timeouts: TimeoutConfig = HASTY,
    others: str | None = None,
) -> JobHandle:
    """Submit a role with rows; `others`: another INSERT, of that many rows ("endless": all)."""
    cluster = Cluster(t_env, name="drained")
    cluster.add_am_role(AMConfig(timeouts=timeouts))
    config = RoleConfig(entry=entry, exchange=SMALL, parallelism=workers)
    cluster.add_role("worker", config, input=wide_rows(t_env, rows, 1_000))
    if others is None:
        return cluster.submit()
    bound = "" if others == "endless" else f", 'number-of-rows'='{others}'"
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE other (id BIGINT) WITH ('connector'='datagen', "
        f"'rows-per-second'='100'{bound})"
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE nowhere (id BIGINT) WITH ('connector'='blackhole')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert_sql("INSERT INTO nowhere SELECT id FROM other")
    return cluster.submit(statements)


def test_a_drain_waits_for_later_passes_that_report_nothing(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        batches = 0
        for _ in ctx.batches(rows=16, epochs=3):
            batches += ctx.epoch == 0
            pause_for(6.0 / batches if ctx.epoch else 0.02)
        ctx.report(trained=1)

    t_env = make_t_env(**RARELY, **NARROW, **in_dir(tmp_path / "cp"))
    job = submit(t_env, entry, timeouts=replace(HASTY, stop_timeout_s=5))
    until(lambda: job.status().rows_in > 100, "rows")
    begin = time.monotonic()
    result = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    assert time.monotonic() - begin > 11, "two passes of six seconds each"
    require_complete(result.savepoint, tmp_path / "saved")
    node = result.status.nodes["worker-0"]
    assert (node.state, node.report) == ("finished", {"trained": 1})


class HeldStart(RoleEntry):
    """As a process whose framework takes long to import: until there is a file."""

    def __init__(self, entry: Any, leave: str) -> None:
        super().__init__(entry)
        self.leave = leave

    def prepare(self, context: RoleContext, spec: Any, link: Any) -> None:
        until(Path(self.leave).exists, "leave to begin", LIMIT_S)


def is_draining() -> bool:
    """Whether the am of a job in this JVM waits for what a drain leaves to be done."""
    threads = get_gateway().jvm.java.lang.Thread.getAllStackTraces().keySet()
    ams = [each for each in threads if " am (1/1)" in each.getName()]
    frames = [str(frame) for each in ams for frame in each.getStackTrace()]
    return any("AmOperator.awaitEndOfCluster" in frame for frame in frames)


def test_a_drain_waits_for_a_process_that_has_not_begun(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        ctx.report(rows=sum(batch.num_rows for batch in ctx.arrow_batches()))

    leave = tmp_path / "leave"
    t_env = make_t_env(**RARELY, **NARROW, **in_dir(tmp_path / "cp"))
    job = submit(t_env, HeldStart(entry, str(leave)))
    until(lambda: job.status().state == "RUNNING")
    with pytest.raises(WaitTimeoutError, match=r"timeout_s of stop\(\)"):
        job.stop(tmp_path / "saved", timeout_s=0.5)
    until(is_draining, "a drain that has come to the am")
    always(is_draining, "the am waits", for_s=HASTY.stop_timeout_s + 2)
    leave.touch()
    result = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    require_complete(result.savepoint, tmp_path / "saved")
    node = result.status.nodes["worker-0"]
    assert node.state == "finished"
    assert node.report["rows"] == node.rows_in > 0


def test_the_loss_of_a_process_during_a_stop_is_the_jobs_failure_however_long_it_takes(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """Another process takes longer to end than the handle waits for a failing job at first."""

    def entry(ctx: Any) -> None:
        for batch in ctx.batches(rows=16):
            ctx.report(rows=len(batch["id"]))
        if ctx.index == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(2):
            with suppress(StopRequestedExit):
                pause_for(6)

    t_env = make_t_env(
        2, **RARELY, **NARROW, **in_dir(tmp_path / "cp"), restart__strategy_type="none"
    )
    slow = TimeoutConfig(stop_grace_s=5, heartbeat_every_s=0.2)
    job = submit(t_env, entry, workers=2, timeouts=slow)
    until(lambda: len(job.status().nodes) == 2 and job.status().rows_in > 100, "rows")
    with pytest.raises(JobFailedError, match="SIGKILL"):
        job.stop(tmp_path / "saved", timeout_s=LIMIT_S)


def wish_at_the_end(ctx: Any) -> None:
    for _ in ctx.batches(rows=16):
        pass
    ctx.stop_job("seen all", savepoint=True)


def test_a_job_without_its_cluster_is_stopped_with_a_savepoint_within_a_bound(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**RARELY, **in_dir(tmp_path / "cp"))
    job = submit(t_env, wish_at_the_end, rows=100, others="endless")
    until(lambda: job.status().state == "FINISHED")
    always(lambda: job.status().state == "FINISHED", "the end", for_s=_STREAM_ENDS_S)
    begin = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"timeout_s of stop\(\)"):
        job.stop(tmp_path / "saved", timeout_s=1)
    assert time.monotonic() - begin < 4, "the wait heeds its limit"
    result = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    require_complete(result.savepoint, tmp_path / "saved")
    assert time.monotonic() - begin < CLOSING_S + 10


def test_a_wish_that_comes_when_the_job_ends_by_itself_harms_nothing(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**RARELY, **in_dir(tmp_path / "cp"))
    closing_longer = replace(HASTY, stop_timeout_s=20)
    job = submit(t_env, wish_at_the_end, rows=100, timeouts=closing_longer, others="1000")
    until(lambda: job.status().state == "FINISHED")
    always(lambda: job.status().state == "FINISHED", "the end", for_s=_STREAM_ENDS_S)
    result = job.wait(timeout_s=LIMIT_S, savepoint=tmp_path / "saved", show_progress=False)
    assert (result.status.state, result.savepoint) == ("FINISHED", None)
    assert result.status.savepoint_wish == "worker-0 asked to stop: seen all"


class NoAnswer:
    """A client whose order is never answered."""

    def stopWithSavepoint(self, *_: Any) -> Any:  # noqa: N802 (Flink's name)
        return get_gateway().jvm.java.util.concurrent.CompletableFuture()


def test_a_stop_that_flink_never_answers_ends_with_the_job(
    make_t_env: MakeEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = submit(make_t_env(**RARELY, **in_dir(tmp_path / "cp")), wish_at_the_end, rows=100)
    target = savepoint_uri(tmp_path / "saved")
    job._stop = SavepointStop(NoAnswer(), job_name="drained", target=target, drains=True)
    until(lambda: has_ended(job._j_client.getJobExecutionResult(), 0), "the job's end")
    begin = time.monotonic()
    with pytest.raises(WaitTimeoutError, match=r"Flink's answer .*timeout_s of stop\(\)"):
        job.stop(tmp_path / "saved", timeout_s=1)
    with pytest.raises(WaitTimeoutError, match=r"Flink's answer .*timeout_s of wait\(\)"):
        job.wait(timeout_s=1)
    assert time.monotonic() - begin < 6, "less than it may wait for the answer"
    monkeypatch.setattr(headrace.operator.handle, "_ANSWER_MS", 500)
    with pytest.raises(StopError, match=r"ended by itself.*never answered the order") as caught:
        job.wait(timeout_s=LIMIT_S)
    assert caught.value.job_state == "FINISHED"
    assert job.wait(timeout_s=LIMIT_S).savepoint is None


def test_an_order_that_flink_does_not_take_is_told_and_leaves_the_job_free_to_end(
    make_t_env: MakeEnvironment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Flink's cluster shuts down before the order: that of a job that has ended."""
    leave, read = str(tmp_path / "leave"), str(tmp_path / "read")

    def entry(ctx: Any) -> None:
        for _ in ctx.batches(rows=16):
            pass
        Path(read).touch()
        until(Path(leave).exists, "leave to end", LIMIT_S)

    def begin() -> JobHandle:
        return submit(make_t_env(**RARELY, **in_dir(tmp_path / "cp")), entry, rows=100)

    Path(leave).touch()
    ended = begin()
    ended.wait(timeout_s=LIMIT_S, show_progress=False)
    until(lambda: state_of(ended._client) is None, "the end of its cluster")
    for mark in (leave, read):
        Path(mark).unlink()
    job = begin()
    until(Path(read).exists, "rows")

    def order(_: Any, **what: Any) -> SavepointStop:
        return SavepointStop(ended._j_client, **what)

    monkeypatch.setattr(headrace.operator.handle, "SavepointStop", order)
    monkeypatch.setattr(headrace.operator.stop, "_HOLD_S", 3600)
    with pytest.raises(StopError, match=r"it goes on \(RUNNING\).*shut down") as caught:
        job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    assert isinstance(caught.value.__cause__, Py4JJavaError)
    Path(leave).touch()
    result = job.wait(timeout_s=50, show_progress=False)
    assert (result.status.state, result.savepoint) == ("FINISHED", None)


def test_a_checkpoint_that_is_declined_leaves_the_job_training(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """With Flink's options as they are where nobody has set them."""

    def entry(ctx: Any) -> None:
        ctx.state["rows"] = 0
        for batch in ctx.batches(rows=1):
            if ctx.state["rows"] == 0:
                pause_for(3)  # a barrier waits behind this row, for longer than it may
            ctx.state["rows"] += len(batch["id"])
            ctx.report(rows=ctx.state["rows"])

    history = CheckpointHistory()
    t_env = make_t_env(
        execution_checkpointing_interval="100 ms",
        **in_dir(tmp_path / "cp"),
        **history.options,
    )
    cluster = Cluster(t_env, name="declined")
    cluster.add_am_role(AMConfig(timeouts=TimeoutConfig(checkpoint_hold_timeout_s=0.5)))
    few = wide_rows(t_env, 10_000, 5)  # so that they do not fill the queue before a barrier
    cluster.add_role("worker", RoleConfig(entry=entry), input=few)
    job = cluster.submit()
    assert "declined" in history.await_recovery(job, limit_s=LIMIT_S)
    status = job.stop(tmp_path / "saved", timeout_s=LIMIT_S).status
    assert (status.state, status.attempt) == ("FINISHED", 1)
    assert status.nodes["worker-0"].report == {"rows": status.rows_in}
    assert status.rows_in > 1, "rows behind the slow one"


def test_each_job_of_a_program_has_directories_of_its_own(make_t_env: MakeEnvironment) -> None:
    flink = open_environment(make_t_env())
    key = "execution.checkpointing.dir"
    made = []
    for _ in range(2):
        drain = Drain(flink, "made")
        assert flink.option(key) is None, "where a drain goes is no place for checkpoints"
        checkpoints = LocalCheckpoints(flink, is_drained=True)
        option = flink.option(key)
        assert option is not None
        assert drain._temporary is not None
        assert checkpoints._path is not None
        assert option == checkpoints._path.as_uri()
        checkpoints.forget()
        assert flink.option(key) is None, "the next job is planned with its own"
        made.append((drain, checkpoints, drain._temporary, checkpoints._path))
    assert len({path for *_, first, second in made for path in (first, second)}) == 4
    for drain, checkpoints, *paths in made:
        assert all(path.is_dir() for path in paths), "still there when others have ended"
        drain.close()
        checkpoints.close()
        assert not any(path.exists() for path in paths)


def submit_endless(make_t_env: MakeEnvironment, checkpoints: Path, saved: Path) -> JobHandle:
    """Start a job whose process ends before its endless input; its savepoints go to `saved`."""
    place = {"execution_checkpointing_savepoint__dir": saved.as_uri()}
    t_env = make_t_env(**RARELY, **in_dir(checkpoints), **place)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE endless (id BIGINT) WITH ('connector'='datagen', "
        "'rows-per-second'='100')"
    )
    cluster = Cluster(t_env, name="endless")
    cluster.add_am_role(AMConfig(timeouts=HASTY))
    worker = RoleConfig(entry=lambda ctx: next(ctx.batches(rows=1)))  # and returns
    cluster.add_role("worker", worker, input=t_env.from_path("endless"))
    return cluster.submit()


def test_a_drain_goes_to_the_directory_that_is_configured(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    job = submit_endless(make_t_env, tmp_path / "cp", tmp_path / "saved")
    assert job._drain is not None
    assert job._drain._temporary is None
    assert job.wait(timeout_s=LIMIT_S, show_progress=False).status.state == "FINISHED"
    (savepoint,) = (tmp_path / "saved").iterdir()
    require_complete(savepoint.as_uri(), tmp_path / "saved")


def test_a_drain_that_fails_is_told_and_tried_again_with_the_next_wait(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.touch()  # no directory can be made below it
    job = submit_endless(make_t_env, tmp_path / "cp", blocked / "saved")
    with pytest.raises(StopError, match=r"call wait\(\) again") as caught:
        job.wait(timeout_s=LIMIT_S, show_progress=False)
    assert caught.value.job_state == "RUNNING"
    assert str(blocked) in caught.value.cause
    blocked.unlink()
    assert job.wait(timeout_s=LIMIT_S, show_progress=False).status.state == "FINISHED"
    job.cancel()  # stays as it is
    (savepoint,) = (blocked / "saved").iterdir()
    require_complete(savepoint.as_uri(), blocked / "saved")
