"""Runs without Flink; those with torch are in tests/unit/pytorch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.config import RoleConfig
from headrace.errors import ConfigError, UsageError, UserCodeError
from headrace.role import RoleContext, RoleEntry
from headrace.testing import Kill, Pause, run

TABLE = pa.table({"n": list(range(10))})
TWICE = pa.schema([("n", pa.int64())])


def double(ctx: Any) -> None:
    for batch in ctx.batches(rows=4):
        ctx.emit({"n": 2 * batch["n"]})
        ctx.report(last=batch["n"][-1], pid=os.getpid())


def test_one_worker_runs_in_this_process() -> None:
    result = run(RoleEntry(double), TABLE, output_schema=TWICE)
    assert result.emitted is not None
    assert result.emitted["n"].to_pylist() == list(range(0, 20, 2))
    assert [*result.reports] == [{"last": 9, "pid": os.getpid()}]
    assert [values["last"] for values in result.workers[0].history] == [3, 7, 9]
    assert result.rows_in == (10,)
    assert not result.saved


def test_several_workers_run_in_processes_of_their_own() -> None:
    result = run(RoleEntry(double), TABLE, workers=2, split=[0.3, 0.7], output_schema=TWICE)
    assert [worker.emitted["n"].to_pylist() for worker in result.workers if worker.emitted] == [
        [0, 2, 4],
        [6, 8, 10, 12, 14, 16, 18],
    ]
    assert result.rows_in == (3, 7)
    pids = {report["pid"] for report in result.reports}
    assert len(pids - {os.getpid()}) == 2


def test_workers_find_each_other_through_the_link() -> None:
    def meet(ctx: Any) -> None:
        ctx.publish(f"name-{ctx.index}", str(ctx.index))
        ctx.report(other=float(ctx.lookup(f"name-{1 - ctx.index}", 30.0)))

    result = run(RoleEntry(meet), workers=2)
    assert [report["other"] for report in result.reports] == [1, 0]


def test_without_an_output_schema_nothing_can_be_emitted() -> None:
    with pytest.raises(UsageError, match="no output"):
        run(RoleEntry(double), TABLE)


def test_a_killed_worker_is_named() -> None:
    with pytest.raises(UserCodeError, match="worker-1") as caught:
        run(
            RoleEntry(double),
            TABLE,
            workers=2,
            output_schema=TWICE,
            faults=[Kill(worker=1, after_rows=0)],
        )
    assert caught.value.signal == "SIGKILL"


def test_an_entry_can_be_run_again_after_a_failure() -> None:
    entry = RoleEntry(lambda ctx: 1 // (ctx.attempt - 1))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run(entry)


def serve(ctx: Any) -> None:
    ctx.publish("address", f"{ctx.role} {dict(ctx.cluster)} {ctx.options['size']}")
    ctx.report(rows=float(ctx.input_schema is not None))
    ctx.lookup("never", 1000.0)


def ask(ctx: Any) -> None:
    assert ctx.lookup("address", 30.0).startswith("ps {")
    ctx.report(rows=sum(len(batch["n"]) for batch in ctx.batches(rows=4)))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_server_beside_the_workers_gets_no_rows_and_is_stopped_after_them(
    workers: int,
) -> None:
    ps = RoleConfig(entry=serve, options={"size": 3})
    result = run(ask, TABLE, workers=workers, others={"ps": ps}, batch_rows=5, timeout_s=60.0)
    assert result.rows_in == ((10,) if workers == 1 else (5, 5))
    assert [report["rows"] for report in result.reports] == [10 / workers] * workers
    assert [each.report for each in result.others["ps"]] == [{"rows": 0}]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_with_ports_know_each_others(workers: int) -> None:
    def look(ctx: Any) -> None:
        own = ctx.addresses["worker"][ctx.index]
        ctx.report(is_own=own == f"127.0.0.1:{ctx.port}", known=len(ctx.addresses["worker"]))

    result = run(look, workers=workers, has_port=True, timeout_s=60.0)
    assert [*result.reports] == [{"is_own": 1, "known": workers}] * workers


def test_a_role_that_decides_is_waited_for() -> None:
    def lead(ctx: Any) -> None:
        ctx.publish("go", "on")
        ctx.report(led=1)

    def follow(ctx: Any) -> None:
        ctx.lookup("go", 30.0)
        ctx.lookup("never", 1000.0)

    chief = RoleConfig(entry=lead)
    result = run(follow, others={"chief": chief}, deciding=["chief"], timeout_s=60.0)
    assert result.others["chief"][0].report == {"led": 1}


def test_a_plain_function_gets_the_context_of_a_role() -> None:
    kinds: list[type] = []
    run(lambda ctx: kinds.append(type(ctx)))
    assert kinds == [RoleContext]


def test_checkpoints_are_in_the_given_directory(tmp_path: Path) -> None:
    def save(ctx: Any) -> None:
        with ctx.checkpoint_path(3) as path:
            path.write_text("saved")

    run(save, checkpoint_dir=tmp_path)
    assert [each.read_text() for each in tmp_path.iterdir()] == ["saved"]


def test_settings_that_a_plain_function_does_not_have_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"epochs=2.*framework='pytorch'"):
        run(double, TABLE, epochs=2)
    with pytest.raises(ConfigError, match=r"output_dir=.*framework='pytorch'"):
        run(double, TABLE, output_dir=tmp_path)
    unknown: Any = "torch"
    with pytest.raises(ConfigError, match="framework='torch' must be one of"):
        run(double, TABLE, framework=unknown)
    with pytest.raises(ConfigError, match="leave it out"):
        run(RoleEntry(double), TABLE, framework="pytorch")


def test_roles_that_do_not_fit_are_refused() -> None:
    config = RoleConfig(entry=serve)
    with pytest.raises(ConfigError, match="the role that `entry` and `workers` describe"):
        run(double, TABLE, others={"worker": config})
    with pytest.raises(ConfigError, match=r"deciding=\['chief'\] must name"):
        run(double, TABLE, others={"ps": config}, deciding=["chief"])
    with pytest.raises(ConfigError, match=r"the script 'serve\.py'"):
        run(double, TABLE, others={"ps": RoleConfig(entry="serve.py", runner="script")})


def test_arguments_that_cannot_work_are_refused() -> None:
    entry = RoleEntry(double)
    with pytest.raises(ConfigError, match="workers=0"):
        run(entry, TABLE, workers=0)
    with pytest.raises(ConfigError, match="not there"):
        run(entry, TABLE, faults=[Pause(worker=1, after_rows=0, for_s=1.0)])
    with pytest.raises(ConfigError, match="calling process"):
        run(entry, TABLE, faults=[Kill(worker=0, after_rows=0)])
    with pytest.raises(ConfigError, match="at least 0"):
        Pause(worker=-1, after_rows=0, for_s=1.0)


def test_parameter_servers_of_another_framework_are_told() -> None:
    with pytest.raises(ConfigError, match=r"ps=1 is for framework='tensorflow'"):
        run(lambda _: None, framework="pytorch", ps=1)


def test_parameter_servers_that_are_described_twice_are_told() -> None:
    others = {"ps": RoleConfig(entry=double)}
    with pytest.raises(ConfigError, match="both describe that role"):
        run(lambda _: None, framework="tensorflow", ps=1, others=others)


def test_parameter_servers_that_are_no_count_are_told() -> None:
    with pytest.raises(ConfigError, match="ps=-1 must be a whole number of at least 0"):
        run(lambda _: None, framework="tensorflow", ps=-1)
