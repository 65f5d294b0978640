"""Rows that a role takes are lent to it, not copied (docs/adr/0075)."""

from __future__ import annotations

from typing import Any

import pytest
from pyflink.common import Types, WatermarkStrategy
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, StreamTableEnvironment, Table

from headrace.config import ExchangeConfig, RoleConfig
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


ROWS = 1000


def echo_of_numbers(reuse: str) -> tuple[StreamTableEnvironment, Table, Table]:
    """A query whose calc fills one row object again and again, and a role chained to it.

    The role waits for a slot at every row, with the row in its hands.
    """
    from pyflink.datastream.connectors.number_seq import NumberSequenceSource  # starts a JVM

    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    t_env = StreamTableEnvironment.create(env)
    t_env.get_config().set("pipeline.object-reuse", reuse)
    ids = env.from_source(
        NumberSequenceSource(1, ROWS), WatermarkStrategy.no_watermarks(), "ids", Types.LONG()
    )
    t_env.create_temporary_view("ids", t_env.from_data_stream(ids).alias("id"))
    made = t_env.sql_query("SELECT id, id * 2 AS twice, CAST(id AS STRING) AS s FROM ids")

    def entry(ctx: Any) -> None:
        for batch in ctx.arrow_batches(rows=100):
            ctx.emit(batch)

    columns = {"id": DataTypes.BIGINT(), "twice": DataTypes.BIGINT(), "s": DataTypes.STRING()}
    config = RoleConfig(entry=entry, exchange=ExchangeConfig(slots=2, batch_rows=1))
    return t_env, made, chained_role("echo", config, input=made, output=columns)


def test_the_maker_of_lent_rows_and_the_role_are_one_task() -> None:
    t_env, _, out = echo_of_numbers("false")
    t_env.to_data_stream(out)
    j_env = t_env._j_tenv.execEnv()
    vertices = j_env.getStreamGraph(False).getJobGraph().getVerticesAsArray()
    names = [vertex.getName() for vertex in vertices]
    assert [name for name in names if "ids" in name and "Calc" in name and "echo" in name]


@pytest.mark.parametrize("reuse", ["false", "true"])
def test_rows_that_their_maker_uses_again_reach_role_and_another_reader_unharmed(
    reuse: str,
) -> None:
    t_env, made, out = echo_of_numbers(reuse)
    both = t_env.sql_query(
        f"SELECT COUNT(*), SUM(id), SUM(twice), COUNT(DISTINCT s) FROM (SELECT * FROM {out}"
        f" UNION ALL SELECT * FROM {made})"
    )
    with both.execute().collect() as results:
        last = list(results)[-1]
    total = ROWS * (ROWS + 1) // 2
    assert tuple(last) == (2 * ROWS, 2 * total, 4 * total, ROWS)
