"""Both sides of the queue at different paces: no deadlock, bounded memory, every row exact."""

from __future__ import annotations

import itertools
import re
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import ExchangeConfig, RoleConfig
from headrace.errors import JobFailedError
from headrace.operator import Cluster, chained_role
from tests.waiting import live_until_ended, pause_for, until, until_settled

from .conftest import MakeEnvironment

ID = {"id": DataTypes.BIGINT()}
SMALL = ExchangeConfig(slots=2, slot_bytes=65_536, batch_rows=100)
ROWS = 20_000
TIMES = 100


def numbers(t_env: StreamTableEnvironment, rows: int, per_second: int = 10**9) -> Table:
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.id.end'='{rows - 1}', 'rows-per-second'='{per_second}')"
    )
    return t_env.from_path("numbers")


def emitted_when_blocked(progress: Path) -> int:
    """Wait until a process has emitted rows, and none for half a second; return how many."""
    return until_settled(lambda: int(read(progress) or 0), "rows, and then none", for_s=0.5)


def read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def mapped_segments(maps: str) -> list[int]:
    """Bytes of each segment of shared memory that a process has mapped."""
    found = re.findall(r"^(\w+)-(\w+) .*/headrace-", maps, re.MULTILINE)
    return [int(end, 16) - int(start, 16) for start, end in found]


def test_a_hundred_rows_out_for_each_in_with_both_queues_full_and_a_slow_consumer(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """The consumer reads nothing before the worker is blocked, and then slowly."""
    folder = str(tmp_path)

    def multiply(ctx: Any) -> None:
        progress = Path(folder) / "emitted"
        emitted = before_kb = 0
        for batch in ctx.batches(rows=50):
            if not before_kb:
                before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
                maps = Path("/proc/self/maps").read_text()
                (Path(folder) / "maps").write_text(maps)
            progress.write_text(str(emitted))
            ids = batch["id"][:, None] * TIMES + np.arange(TIMES)
            ctx.emit({"id": ids.ravel()})
            emitted += ids.size
        grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
        (Path(folder) / "grown-kb").write_text(str(grown_kb))

    def consume(ctx: Any) -> None:
        until((Path(folder) / "go").exists, "leave to read")
        expected = 0
        for count, batch in enumerate(ctx.batches(rows=10_000)):
            ids = batch["id"]
            assert (ids == np.arange(expected, expected + len(ids))).all()
            expected += len(ids)
            if count < 20:
                pause_for(0.02)
        ctx.report(rows=expected)

    t_env = make_t_env()
    multiplied = chained_role(
        "multiply",
        RoleConfig(entry=multiply, exchange=SMALL),
        input=numbers(t_env, ROWS),
        output=ID,
    )
    cluster = Cluster(t_env, name="pressure")
    cluster.add_am_role()
    consumer = RoleConfig(entry=consume, exchange=SMALL)
    cluster.add_role("consumer", consumer, input=multiplied)
    job = cluster.submit()
    assert emitted_when_blocked(tmp_path / "emitted") < ROWS * TIMES / 2
    (tmp_path / "go").touch()
    status = job.wait(timeout_s=100, show_progress=False).status
    assert status.nodes["consumer-0"].report["rows"] == ROWS * TIMES
    segment_bytes = SMALL.slots * SMALL.slot_bytes
    assert mapped_segments((tmp_path / "maps").read_text()) == [segment_bytes] * 2
    assert int((tmp_path / "grown-kb").read_text()) < 32 * 1024


@pytest.mark.parametrize("reads", [False, True], ids=["output-full", "both-full"])
def test_cancel_while_the_process_waits_for_room_ends_within_5_s(
    make_t_env: MakeEnvironment, tmp_path: Path, reads: bool
) -> None:
    folder = str(tmp_path)

    def emit(ctx: Any) -> None:
        emitted = 0
        batches = ctx.batches(rows=50) if reads else itertools.repeat({"id": np.arange(50)})
        for batch in batches:
            (Path(folder) / "emitted").write_text(str(emitted))
            ctx.emit(batch)
            emitted += len(batch["id"])

    def consume(ctx: Any) -> None:
        live_until_ended()

    t_env = make_t_env()
    cluster = Cluster(t_env, name="stuck")
    cluster.add_am_role()
    out = cluster.add_role(
        "worker",
        RoleConfig(entry=emit, exchange=SMALL),
        input=numbers(t_env, 10_000_000) if reads else None,
        output=ID,
    )
    assert isinstance(out, Table)
    sink = chained_role("sink", RoleConfig(entry=consume, exchange=SMALL), input=out, output=ID)
    t_env.execute_sql("CREATE TEMPORARY TABLE hole (id BIGINT) WITH ('connector'='blackhole')")
    statements = t_env.create_statement_set()
    statements.add_insert("hole", sink)
    job = cluster.submit(statements)
    emitted_when_blocked(tmp_path / "emitted")
    started_at = time.monotonic()
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=30, show_progress=False)
    assert time.monotonic() - started_at < 5
