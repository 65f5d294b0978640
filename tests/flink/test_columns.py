"""Columns as users name and declare them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from py4j.protocol import Py4JJavaError
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import RoleConfig
from headrace.errors import PlanError
from headrace.operator import Cluster, chained_role
from headrace.operator.failure import cause_text

from .conftest import MakeEnvironment

NAMES = [
    "id",
    "ID",
    "a.b",
    "a b",
    "größe",
    "select",
    "0",
    "漢字",
    'q"uote',
    "tab\t",
    "i__valid",
]
WIDTH = 400


def json_sink(t_env: StreamTableEnvironment, name: str, path: Path, columns: str) -> None:
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE {name} ({columns}) WITH ('connector'='filesystem', "
        f"'path'='{path.as_uri()}', 'format'='json')"
    )


def read_json(path: Path) -> list[dict[str, Any]]:
    files = [each for each in path.rglob("part-*") if each.is_file()]
    return [json.loads(line) for each in files for line in each.read_text().splitlines()]


def test_columns_of_any_name_and_hundreds_of_them_pass_both_ways(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=10):
            ctx.emit({name: batch.column(name) for name in reversed(batch.schema.names)})

    t_env = make_t_env()
    wide = {f"c{i}": DataTypes.STRING() if i % 3 else DataTypes.INT() for i in range(WIDTH)}
    wide_sql = ", ".join(f"'{i}' AS c{i}" if i % 3 else f"{i} AS c{i}" for i in range(WIDTH))
    named_sql = ", ".join(f"{i} AS `{name}`" for i, name in enumerate(NAMES))
    cluster = Cluster(t_env, name="columns")
    cluster.add_am_role()
    statements = t_env.create_statement_set()
    for role, query, output in (
        ("named", named_sql, dict.fromkeys(NAMES, DataTypes.INT())),
        ("wide", wide_sql, wide),
    ):
        out = cluster.add_role(
            role,
            RoleConfig(entry=entry),
            input=t_env.sql_query(f"SELECT {query}"),
            output=output,
        )
        assert isinstance(out, Table)
        types = [
            f"`{name}` {'INT' if t == DataTypes.INT() else 'STRING'}"
            for name, t in output.items()
        ]
        json_sink(t_env, f"{role}_sink", tmp_path / role, ", ".join(types))
        statements.add_insert(f"{role}_sink", out)
    cluster.submit(statements).wait(timeout_s=100, show_progress=False)
    assert read_json(tmp_path / "named") == [{name: i for i, name in enumerate(NAMES)}]
    (row,) = read_json(tmp_path / "wide")
    assert row == {f"c{i}": str(i) if i % 3 else i for i in range(WIDTH)}


def _entry(ctx: Any) -> None:
    return None


def _cluster(t_env: StreamTableEnvironment) -> Cluster:
    cluster = Cluster(t_env, name="plan")
    cluster.add_am_role()
    return cluster


def test_the_name_of_the_hidden_column_is_refused_when_planned(
    t_env: StreamTableEnvironment,
) -> None:
    table = t_env.sql_query("SELECT 1 AS __timestamp__")
    worker = RoleConfig(entry=_entry)
    with pytest.raises(PlanError, match=r"(?s)role 'worker'.*`__timestamp__` is reserved"):
        _cluster(t_env).add_role("worker", worker, input=table)
    with pytest.raises(PlanError, match=r"(?s)role 'worker'.*`__timestamp__` is reserved"):
        _cluster(t_env).add_role("worker", worker, output={"__timestamp__": DataTypes.INT()})


def test_an_output_column_that_is_there_twice_is_refused_when_planned(
    t_env: StreamTableEnvironment,
) -> None:
    twice = DataTypes.ROW([DataTypes.FIELD("a", DataTypes.INT())] * 2)
    with pytest.raises(PlanError, match=r"(?s)output.*\ba\b"):
        _cluster(t_env).add_role("worker", RoleConfig(entry=_entry), output=twice)


@pytest.mark.parametrize(
    ("sql", "path"),
    [
        ("INTERVAL '3' DAY AS pause_length", "pause_length"),
        ("ARRAY[INTERVAL '1' YEAR] AS pauses", r"pauses\.item"),
        ("MAP['a', ROW(INTERVAL '1' YEAR)] AS m", r"m\.value\.EXPR\$0"),
        ("PARSE_JSON('{}') AS v", "v"),
    ],
)
def test_a_type_that_does_not_travel_is_named_with_its_path(
    t_env: StreamTableEnvironment, sql: str, path: str
) -> None:
    with pytest.raises(PlanError, match=rf"(?s)role 'worker'.*`{path}`"):
        _cluster(t_env).add_role(
            "worker", RoleConfig(entry=_entry), input=t_env.sql_query(f"SELECT {sql}")
        )


def test_a_null_for_a_not_null_column_fails_the_job_and_names_the_column(
    t_env: StreamTableEnvironment,
) -> None:
    def entry(ctx: Any) -> None:
        ctx.emit({"size": pa.array([1, None], pa.int32())})

    emitted = chained_role(
        "emitter",
        RoleConfig(entry=entry),
        input=t_env.sql_query("SELECT 1 AS nothing"),
        output={"size": DataTypes.INT().not_null()},
    )
    t_env.execute_sql("CREATE TEMPORARY TABLE hole (size INT) WITH ('connector'='blackhole')")
    with pytest.raises(Py4JJavaError) as caught:
        emitted.execute_insert("hole").wait(60_000)
    assert "`size`" in cause_text(caught.value)
    assert "NOT NULL" in cause_text(caught.value)


def test_instants_are_the_same_in_every_local_time_zone(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    saved = str(tmp_path / "saved")

    def entry(ctx: Any) -> None:
        for batch in ctx.batches(rows=1):
            Path(saved).write_text(
                " ".join(str(batch[c][0]) for c in ("ltz", "ts", "day", "t"))
            )
            ctx.emit(batch)

    t_env = make_t_env(table_local__time__zone="America/New_York")
    out = chained_role(
        "echo",
        RoleConfig(entry=entry),
        input=t_env.sql_query(
            "SELECT CAST(TIMESTAMP '2013-07-01 22:00:00.5' AS TIMESTAMP_LTZ(3)) AS ltz,"
            " TIMESTAMP '2013-07-01 22:00:00.5' AS ts, DATE '2013-07-01' AS `day`,"
            " TIME '22:00:00' AS t"
        ),
        output={
            "ltz": DataTypes.TIMESTAMP_LTZ(3),
            "ts": DataTypes.TIMESTAMP(1),
            "day": DataTypes.DATE(),
            "t": DataTypes.TIME(0),
        },
    )
    t_env.create_temporary_view("echoed", out)
    json_sink(t_env, "texts", tmp_path / "out", "a STRING, b STRING, c STRING, d STRING")
    t_env.execute_sql(
        "INSERT INTO texts SELECT CAST(ltz AS STRING), CAST(ts AS STRING), "
        "CAST(`day` AS STRING), CAST(t AS STRING) FROM echoed"
    ).wait()
    instants = Path(saved).read_text()
    assert (
        instants == "2013-07-02T02:00:00.500 2013-07-01T22:00:00.500 2013-07-01 79200 seconds"
    )
    local = ["2013-07-01 22:00:00.500", "2013-07-01 22:00:00.5", "2013-07-01", "22:00:00"]
    assert [*read_json(tmp_path / "out")[0].values()] == local
