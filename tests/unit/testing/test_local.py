"""Runs without Flink; those with torch are in tests/unit/pytorch."""

from __future__ import annotations

import os
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import ConfigError, UsageError, UserCodeError
from headrace.role import RoleEntry
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
