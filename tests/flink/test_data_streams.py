"""Roles in a program of the DataStream API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyflink.common import Types
from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment

from headrace.config import RoleConfig
from headrace.errors import JobFailedError
from headrace.operator import Cluster, chained_role

ROWS = [(i, f"row {i}") for i in range(1, 26)]


def test_rows_of_a_data_stream_go_through_a_worker_and_come_back(tmp_path: Path) -> None:
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    stream = env.from_collection(
        ROWS, type_info=Types.ROW_NAMED(["id", "s"], [Types.LONG(), Types.STRING()])
    )

    def entry(ctx: Any) -> None:
        for batch in ctx.batches(rows=10):
            ctx.emit({"id": batch["id"] * 2, "s": batch["s"]})

    cluster = Cluster(env, name="streams")
    cluster.add_am_role()
    out = cluster.add_role(
        "worker",
        RoleConfig(entry=entry),
        input=stream,
        output={"id": DataTypes.BIGINT(), "s": DataTypes.STRING()},
    )
    assert isinstance(out, DataStream)
    t_env = StreamTableEnvironment.create(env)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE results (id BIGINT, s STRING) WITH "
        f"('connector'='filesystem', 'path'='{tmp_path.as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("results", t_env.from_data_stream(out))
    cluster.submit(statements).wait(timeout_s=100)
    lines = [line for p in tmp_path.rglob("part-*") for line in p.read_text().splitlines()]
    got = sorted((json.loads(line) for line in lines), key=lambda row: row["id"])
    assert got == [{"id": 2 * i, "s": s} for i, s in ROWS]


def test_a_role_without_master_takes_and_gives_a_data_stream() -> None:
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    types = Types.ROW_NAMED(["id", "s"], [Types.LONG(), Types.STRING()])

    def entry(ctx: Any) -> None:
        assert ctx.job_name == "the job"
        for batch in ctx.batches(rows=10):
            ctx.emit({"id": batch["id"] * 2, "s": batch["s"]})

    out = chained_role(
        "doubled",
        RoleConfig(entry=entry),
        input=env.from_collection(ROWS, type_info=types),
        output={"id": DataTypes.BIGINT(), "s": DataTypes.STRING()},
    )
    assert isinstance(out, DataStream)
    with out.execute_and_collect("the job") as collected:
        got = sorted((row[0], row[1]) for row in collected)
    assert got == [(2 * i, s) for i, s in ROWS]


def test_a_record_that_is_a_change_fails_the_job() -> None:
    env = StreamExecutionEnvironment.get_execution_environment()
    t_env = StreamTableEnvironment.create(env)
    counts = t_env.sql_query(
        "SELECT x, COUNT(*) AS n FROM (VALUES (1), (1), (2)) AS t(x) GROUP BY x"
    )

    def entry(ctx: Any) -> None:
        for _ in ctx.arrow_batches(rows=1):
            pass

    cluster = Cluster(env, name="changes")
    cluster.add_am_role()
    changes = t_env.to_changelog_stream(counts)
    cluster.add_role("worker", RoleConfig(entry=entry), input=changes)
    with pytest.raises(JobFailedError, match=r"is a change \(-U\).*rows that are only added"):
        cluster.submit().wait(timeout_s=100)
