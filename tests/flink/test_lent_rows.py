"""Rows that a role takes are lent to it, not copied (docs/adr/0075)."""

from __future__ import annotations

from typing import Any

import pytest
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, StreamTableEnvironment

from headrace.config import RoleConfig
from headrace.operator import chained_role
from headrace.operator.environment import open_environment
from headrace.operator.streams import input_stream


def is_copied(j_stream: Any) -> bool:
    """Whether the serializer of the edge behind the stream copies a row."""
    jvm = get_gateway().jvm
    j_config = jvm.org.apache.flink.api.common.serialization.SerializerConfigImpl()
    row = jvm.org.apache.flink.table.data.GenericRowData(1)
    row.setField(0, 7)
    copy = j_stream.getType().createSerializer(j_config).copy(row)
    assert copy.equals(row)
    copy.setField(0, 8)
    return bool(row.getField(0) == 7)


@pytest.mark.parametrize("of", ["a table", "a DataStream"])
def test_rows_for_a_role_are_lent(of: str) -> None:
    env = StreamExecutionEnvironment.get_execution_environment()
    t_env = StreamTableEnvironment.create(env)
    rows: Any = t_env.sql_query("SELECT n FROM (VALUES (1), (2)) AS t (n)")
    if of == "a DataStream":
        rows = t_env.to_data_stream(rows)
    j_stream, _ = input_stream(open_environment(t_env), "worker", rows)
    assert not is_copied(j_stream)


def test_a_row_that_its_maker_uses_again_reaches_role_and_sink_unharmed() -> None:
    """Two readers of one query, of which one is a role; Flink's calc fills one row object."""
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    t_env = StreamTableEnvironment.create(env)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='1', 'fields.id.end'='20000')"
    )
    doubled = t_env.sql_query(
        "SELECT id, id * 2 AS twice, CAST(id AS STRING) AS s FROM numbers"
    )

    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=100):
            ctx.emit(batch)

    columns = {"id": DataTypes.BIGINT(), "twice": DataTypes.BIGINT(), "s": DataTypes.STRING()}
    out = chained_role("echo", RoleConfig(entry=entry), input=doubled, output=columns)
    both = t_env.sql_query(
        f"SELECT COUNT(*), SUM(id), SUM(twice), COUNT(DISTINCT s) FROM (SELECT * FROM {out}"
        f" UNION ALL SELECT * FROM {doubled})"
    )
    with both.execute().collect() as results:
        last = list(results)[-1]
    total = 20000 * 20001 // 2
    assert tuple(last) == (40000, 2 * total, 4 * total, 20000)
