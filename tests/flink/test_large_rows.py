"""Rows that are larger than a slot, than the whole queue, and than what is allowed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from py4j.protocol import Py4JJavaError
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import ExchangeConfig, RoleConfig
from headrace.errors import JobFailedError
from headrace.operator import Cluster, chained_role
from headrace.operator.failure import cause_text

from .conftest import MakeEnvironment

SLOT_BYTES = 65_536
SLOTS = 2
SIZES = (10, SLOT_BYTES - 500, SLOT_BYTES, 200_000, 1, 3_000_000, 70_000)
ROWS = 4 * len(SIZES)
COLUMNS = {"id": DataTypes.BIGINT(), "s": DataTypes.STRING()}


def texts(t_env: StreamTableEnvironment, rows: int, sizes: tuple[int, ...]) -> Table:
    """Rows `id` from 0 with a text of the id, repeated up to one of `sizes` characters."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        f"'fields.id.kind'='sequence', 'fields.id.start'='0', 'fields.id.end'='{rows - 1}')"
    )
    cases = " ".join(f"WHEN {index} THEN {size}" for index, size in enumerate(sizes))
    size = f"CASE MOD(id, {len(sizes)}) {cases} END"
    return t_env.sql_query(
        f"SELECT id, LPAD('', {size}, CAST(id AS STRING) || ',') AS s FROM numbers"
    )


def text_of(row: int, size: int) -> str:
    return (f"{row}," * size)[:size]


def test_rows_larger_than_a_slot_and_than_the_queue_travel_both_ways_in_order(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=3):
            ctx.emit(batch)

    t_env = make_t_env()
    cluster = Cluster(t_env, name="large")
    cluster.add_am_role()
    exchange = ExchangeConfig(slots=SLOTS, slot_bytes=SLOT_BYTES, batch_rows=4)
    out = cluster.add_role(
        "worker",
        RoleConfig(entry=entry, exchange=exchange),
        input=texts(t_env, ROWS, SIZES),
        output=COLUMNS,
    )
    assert isinstance(out, Table)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE sink (id BIGINT, s STRING) WITH ('connector'='filesystem', "
        f"'path'='{tmp_path.as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("sink", out)
    cluster.submit(statements).wait(timeout_s=100, show_progress=False)
    files = [path for path in tmp_path.rglob("part-*") if path.is_file()]
    got = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    assert [row["id"] for row in got] == [*range(ROWS)]
    for index, row in enumerate(got):
        assert row["s"] == text_of(index, SIZES[index % len(SIZES)])


@pytest.mark.parametrize("limit_bytes", [40_000, 100_000], ids=["under-a-slot", "over-a-slot"])
def test_a_row_over_the_limit_fails_the_job_and_names_the_setting(
    make_t_env: MakeEnvironment, limit_bytes: int
) -> None:
    def entry(ctx: Any) -> None:
        for _ in ctx.arrow_batches(rows=3):
            pass

    t_env = make_t_env()
    cluster = Cluster(t_env, name="large")
    cluster.add_am_role()
    exchange = ExchangeConfig(slots=SLOTS, slot_bytes=SLOT_BYTES, max_row_bytes=limit_bytes)
    worker = RoleConfig(entry=entry, exchange=exchange)
    cluster.add_role(
        "worker", worker, input=texts(t_env, 100, (limit_bytes - 1000,) * 9 + (limit_bytes,))
    )
    with pytest.raises(JobFailedError) as caught:
        cluster.submit().wait(timeout_s=60, show_progress=False)
    check_refusal(caught.value.cause, limit_bytes)


@pytest.mark.parametrize("limit_bytes", [40_000, 100_000], ids=["under-a-slot", "over-a-slot"])
def test_an_emitted_row_over_the_limit_fails_the_job_and_names_the_setting(
    make_t_env: MakeEnvironment, limit_bytes: int
) -> None:
    def entry(ctx: Any) -> None:
        ctx.emit(
            {"id": [1, 2, 3], "s": ["fits", "x" * (limit_bytes - 1000), "x" * limit_bytes]}
        )

    t_env = make_t_env()
    exchange = ExchangeConfig(slots=SLOTS, slot_bytes=SLOT_BYTES, max_row_bytes=limit_bytes)
    emitted = chained_role(
        "emitter",
        RoleConfig(entry=entry, exchange=exchange),
        input=t_env.sql_query("SELECT 1 AS nothing"),
        output=COLUMNS,
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE sink (id BIGINT, s STRING) WITH ('connector'='blackhole')"
    )
    with pytest.raises(Py4JJavaError) as caught:
        emitted.execute_insert("sink").wait(60_000)
    check_refusal(cause_text(caught.value), limit_bytes)


def check_refusal(cause: str, limit_bytes: int) -> None:
    found = re.search(r"A row .*?(\d+) bytes", cause)
    assert found, cause
    assert limit_bytes < int(found[1]) < limit_bytes + 2000
    assert f"`exchange.max_row_bytes`={limit_bytes}" in cause
