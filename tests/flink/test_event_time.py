"""Timestamps and watermarks pass a process in order with the rows; idleness passes too."""

from __future__ import annotations

import datetime as dt
import json
import statistics
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import DataTypes, Schema, StreamTableEnvironment, Table

from headrace.config import ExchangeConfig, RoleConfig
from headrace.errors import JobFailedError
from headrace.operator import Cluster, chained_role
from tests.waiting import pause_for, until

from .conftest import MakeEnvironment

ROWS = 3000
LATE_EVERY = 100
LATE_S = 400
WINDOW_S = 10
COLUMNS = "id BIGINT, ts TIMESTAMP(3)"
OUTPUT = {"id": DataTypes.BIGINT(), "ts": DataTypes.TIMESTAMP(3)}
START = dt.datetime(2013, 1, 1)  # noqa: DTZ001 (TIMESTAMP has no time zone)
_DIFFER_S = 0.1
"""How far the medians of two roles of one job may differ on a busy machine by themselves."""


def is_late(row: int) -> bool:
    return row % LATE_EVERY == LATE_EVERY - 1


def event_second(row: int) -> int:
    """A row a second, shuffled within 3 s; some come when their window is long over."""
    return row - LATE_S if is_late(row) else row + (row * 7) % 4


def write_events(folder: Path, seconds: list[int]) -> None:
    folder.mkdir()
    stamps = [(START + dt.timedelta(seconds=second)).isoformat(" ") for second in seconds]
    lines = [json.dumps({"id": row, "ts": stamp}) for row, stamp in enumerate(stamps)]
    (folder / "events.json").write_text("\n".join(lines))


def events(t_env: StreamTableEnvironment, name: str, folder: Path, options: str = "") -> Table:
    """A table with watermarks 3 s behind the latest row."""
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE {name} ({COLUMNS}, WATERMARK FOR ts AS ts - INTERVAL '3' "
        f"SECOND) WITH ('connector'='filesystem', 'path'='{folder.as_uri()}', "
        f"'format'='json'{options})"
    )
    return t_env.from_path(name)


def with_event_time(t_env: StreamTableEnvironment, name: str, table: Table) -> None:
    """Register what a role emits as a view with the event time of its watermarks."""
    schema = (
        Schema.new_builder()
        .column("id", DataTypes.BIGINT())
        .column("ts", DataTypes.TIMESTAMP(3))
        .watermark("ts", "SOURCE_WATERMARK()")
        .build()
    )
    stream = t_env.to_data_stream(table)
    t_env.create_temporary_view(name, t_env.from_data_stream(stream, schema))


def windows(name: str, time: str = "ts") -> str:
    return (
        "SELECT window_start AS w, COUNT(*) AS n FROM TABLE(TUMBLE(TABLE "
        f"{name}, DESCRIPTOR({time}), INTERVAL '{WINDOW_S}' SECOND)) "
        "GROUP BY window_start, window_end"
    )


def window_of(stamp: str) -> int:
    return round((dt.datetime.fromisoformat(stamp) - START).total_seconds()) // WINDOW_S


def read_counts(folder: Path) -> list[tuple[int, int]]:
    files = [path for path in folder.rglob("part-*") if path.is_file()]
    rows = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return [(window_of(row["w"]), row["n"]) for row in rows]


def test_event_time_windows_behind_a_process_are_exact_and_drop_what_is_late(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    """Late rows drop out only if watermarks pass, others only if watermarks overtake them."""

    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=int(ctx.role.removeprefix("by_"))):
            assert ctx.timestamps_ms is not None
            assert ctx.timestamps_ms.to_pylist() == batch.column("ts").cast("int64").to_pylist()
            ctx.emit(batch, timestamps_ms=ctx.timestamps_ms)

    t_env = make_t_env()
    write_events(tmp_path / "events", [event_second(row) for row in range(ROWS)])
    rows = events(t_env, "events", tmp_path / "events")
    cluster = Cluster(t_env, name="event-time")
    cluster.add_am_role()
    statements = t_env.create_statement_set()
    names = ["by_1", "by_50"]
    exchange = ExchangeConfig(slots=2, slot_bytes=65_536, batch_rows=64)
    for name in names:
        out = cluster.add_role(
            name, RoleConfig(entry=entry, exchange=exchange), input=rows, output=OUTPUT
        )
        assert isinstance(out, Table)
        with_event_time(t_env, f"{name}_out", out)
        t_env.execute_sql(
            f"CREATE TEMPORARY TABLE {name}_sink (w TIMESTAMP(3), n BIGINT) WITH ("
            f"'connector'='filesystem', 'path'='{(tmp_path / name).as_uri()}', 'format'='json')"
        )
        statements.add_insert_sql(f"INSERT INTO {name}_sink {windows(f'{name}_out')}")
    cluster.submit(statements).wait(timeout_s=100, show_progress=False)
    on_time = [event_second(row) // WINDOW_S for row in range(ROWS) if not is_late(row)]
    for name in names:
        assert read_counts(tmp_path / name) == sorted(Counter(on_time).items())


def test_records_of_a_data_stream_keep_their_timestamps_and_get_those_that_are_emitted(
    tmp_path: Path,
) -> None:
    shift_s = 3600

    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=50):
            stamps = batch.column("ts").cast("int64")
            assert ctx.timestamps_ms == stamps
            ctx.emit(batch, timestamps_ms=pc.add(ctx.timestamps_ms, 1000 * shift_s))

    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    t_env = StreamTableEnvironment.create(env)
    t_env.get_config().set("table.local-time-zone", "UTC")
    write_events(tmp_path / "events", [*range(ROWS)])
    rows = t_env.to_data_stream(events(t_env, "events", tmp_path / "events"))
    cluster = Cluster(env, name="records")
    cluster.add_am_role()
    out = cluster.add_role("worker", RoleConfig(entry=entry), input=rows, output=OUTPUT)
    assert isinstance(out, DataStream)
    schema = (
        Schema.new_builder()
        .column_by_metadata("rowtime", DataTypes.TIMESTAMP_LTZ(3))
        .watermark("rowtime", "SOURCE_WATERMARK()")
        .build()
    )
    t_env.create_temporary_view("emitted", t_env.from_data_stream(out, schema))
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE sink (w TIMESTAMP(3), n BIGINT) WITH ('connector'='filesystem',"
        f" 'path'='{(tmp_path / 'out').as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert_sql(f"INSERT INTO sink {windows('emitted', 'rowtime')}")
    cluster.submit(statements).wait(timeout_s=100, show_progress=False)
    first = shift_s // WINDOW_S
    expected = [(first + window, WINDOW_S) for window in range(ROWS // WINDOW_S)]
    assert read_counts(tmp_path / "out") == expected


@pytest.mark.parametrize("returns", [False, True], ids=["reads on", "returns"])
def test_an_idle_input_holds_back_no_watermark_behind_its_process(
    make_t_env: MakeEnvironment, tmp_path: Path, returns: bool
) -> None:
    """One that returns has not read that its input is idle."""
    folder = str(tmp_path)
    idle_s = 3

    def echo(ctx: Any) -> None:
        for number, batch in enumerate(ctx.arrow_batches(rows=1), 1):
            ctx.emit(batch)
            if returns and number == 3:
                pause_for(idle_s + 2)
                break

    def collect(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=1):
            with (Path(folder) / "windows").open("a") as lines:
                lines.write(f"{batch.column('w')[0]} {batch.column('n')[0]}\n")

    t_env = make_t_env(table_exec_source_idle__timeout=f"{idle_s} s")
    write_events(tmp_path / "quiet", [0, 1, 2])
    write_events(tmp_path / "lively", [*range(60)])
    endless = ", 'source.monitor-interval'='100 ms'"
    quiet = events(t_env, "quiet", tmp_path / "quiet", endless)
    events(t_env, "lively", tmp_path / "lively", endless)
    cluster = Cluster(t_env, name="idle")
    cluster.add_am_role()
    out = cluster.add_role("echo", RoleConfig(entry=echo), input=quiet, output=OUTPUT)
    assert isinstance(out, Table)
    with_event_time(t_env, "echoed", out)
    both = t_env.sql_query("SELECT * FROM echoed UNION ALL SELECT * FROM lively")
    t_env.create_temporary_view("both_inputs", both)
    counts = chained_role(
        "collect",
        RoleConfig(entry=collect),
        input=t_env.sql_query(windows("both_inputs")),
        output=OUTPUT,
    )
    t_env.execute_sql(f"CREATE TEMPORARY TABLE hole ({COLUMNS}) WITH ('connector'='blackhole')")
    statements = t_env.create_statement_set()
    statements.add_insert("hole", counts)
    job = cluster.submit(statements)
    found = tmp_path / "windows"
    until(lambda: found.exists() and len(found.read_text().splitlines()) == 5)
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=30, show_progress=False)
    lines = [line.rsplit(" ", 1) for line in found.read_text().splitlines()]
    got = [(window_of(stamp), int(count)) for stamp, count in lines]
    assert got == [(0, 13), *((window, 10) for window in range(1, 5))]


def test_a_lone_row_reaches_the_process_within_linger_ms(make_t_env: MakeEnvironment) -> None:
    """Two rows a second: each is alone, and waits as long as it may for a second one."""
    long_ms = 400

    def entry(ctx: Any) -> None:
        now = dt.datetime.now(dt.timezone.utc)
        started_at = now.timestamp() + 0.5  # what was sent earlier has waited for the process
        ages_s: list[float] = []
        for batch in ctx.batches(rows=1):
            now = dt.datetime.now(dt.timezone.utc)
            sent_at = float(batch["sent_at"][0].astype("int64")) / 1000
            if sent_at > started_at:
                ages_s.append(now.timestamp() - sent_at)
            if len(ages_s) == 15:
                break
        ctx.report(median_s=statistics.median(ages_s))

    t_env = make_t_env()
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'rows-per-second'='2')"
    )
    sent = t_env.sql_query(
        "SELECT id, CAST(PROCTIME() AS TIMESTAMP_LTZ(3)) AS sent_at FROM numbers"
    )
    cluster = Cluster(t_env, name="linger")
    cluster.add_am_role()
    for linger_ms in (0, 10, long_ms):
        worker = RoleConfig(entry=entry, exchange=ExchangeConfig(linger_ms=linger_ms))
        cluster.add_role(f"linger_{linger_ms}", worker, input=sent)
    nodes = cluster.submit().wait(timeout_s=60, show_progress=False).status.nodes
    median_s = {name: node.report["median_s"] for name, node in nodes.items()}
    # The role without linger meets the same busy machine: what it takes is no part of the wait.
    waited_10_s = median_s["linger_10-0"] - median_s["linger_0-0"]
    waited_long_s = median_s[f"linger_{long_ms}-0"] - median_s["linger_0-0"]
    assert waited_10_s < 10 / 1000 + _DIFFER_S
    assert long_ms / 1000 - _DIFFER_S < waited_long_s < long_ms / 1000 + _DIFFER_S
