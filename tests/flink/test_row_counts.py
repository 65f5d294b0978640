"""Every row once, in order, at the sizes where counting goes wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import ExchangeConfig, RoleConfig
from headrace.operator import Cluster, chained_role

from .conftest import MakeEnvironment

BATCH_ROWS = 64
COUNTS = (0, 1, BATCH_ROWS - 1, BATCH_ROWS, BATCH_ROWS + 1)
ID = {"id": DataTypes.BIGINT()}


def sequence(t_env: StreamTableEnvironment, rows: int) -> None:
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='1', "
        f"'fields.id.end'='{rows}', 'rows-per-second'='1000000000')"
    )


def test_none_one_and_about_a_batch_of_rows_come_back_in_order(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        batches = 0
        for batch in ctx.arrow_batches(rows=BATCH_ROWS):
            ctx.emit(batch)
            batches += 1
        ctx.report(batches=batches)

    t_env = make_t_env()
    sequence(t_env, 1000)
    cluster = Cluster(t_env, name="counts")
    cluster.add_am_role()
    statements = t_env.create_statement_set()
    exchange = ExchangeConfig(slots=2, slot_bytes=65_536, batch_rows=BATCH_ROWS)
    for rows in COUNTS:
        out = cluster.add_role(
            f"echo_{rows}",
            RoleConfig(entry=entry, exchange=exchange),
            input=t_env.sql_query(f"SELECT id FROM numbers WHERE id <= {rows}"),
            output=ID,
        )
        assert isinstance(out, Table)
        t_env.execute_sql(
            f"CREATE TEMPORARY TABLE sink_{rows} (id BIGINT) WITH ('connector'='filesystem', "
            f"'path'='{(tmp_path / str(rows)).as_uri()}', 'format'='json')"
        )
        statements.add_insert(f"sink_{rows}", out)
    status = cluster.submit(statements).wait(timeout_s=100, show_progress=False).status
    for rows in COUNTS:
        files = [path for path in (tmp_path / str(rows)).rglob("part-*") if path.is_file()]
        got = [
            json.loads(line)["id"] for path in files for line in path.read_text().splitlines()
        ]
        assert got == [*range(1, rows + 1)]
        assert status.nodes[f"echo_{rows}-0"].rows_in == rows
        assert status.nodes[f"echo_{rows}-0"].report["batches"] == -(-rows // BATCH_ROWS)


@pytest.mark.long
def test_ten_million_rows_pass_two_processes_and_none_is_lost_or_doubled(
    make_t_env: MakeEnvironment,
) -> None:
    rows = 10_000_000

    def echo(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=4096):
            ctx.emit(batch)

    def check(ctx: Any) -> None:
        expected = 1
        for batch in ctx.batches(rows=4096):
            ids = batch["id"]
            assert (ids == np.arange(expected, expected + len(ids))).all()
            expected += len(ids)
        ctx.report(rows=expected - 1)

    t_env = make_t_env()
    sequence(t_env, rows)
    echoed = chained_role(
        "echo", RoleConfig(entry=echo), input=t_env.from_path("numbers"), output=ID
    )
    cluster = Cluster(t_env, name="many")
    cluster.add_am_role()
    cluster.add_role("checker", RoleConfig(entry=check), input=echoed)
    status = cluster.submit().wait(timeout_s=100, show_progress=False).status
    assert status.rows_in == rows
    assert status.nodes["checker-0"].report["rows"] == rows
