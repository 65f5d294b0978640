"""What cannot be planned is refused before anything is submitted."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from pyflink.datastream import RuntimeExecutionMode, StreamExecutionEnvironment
from pyflink.table import (
    DataTypes,
    EnvironmentSettings,
    StreamTableEnvironment,
    Table,
    TableEnvironment,
)

from headrace.config import AMConfig, RoleConfig
from headrace.errors import ConfigError, PlanError
from headrace.operator import Cluster


def _entry(ctx: Any) -> None:
    return None


def _cluster(t_env: StreamTableEnvironment) -> Cluster:
    cluster = Cluster(t_env, name="plan")
    cluster.add_am_role(AMConfig())
    return cluster


def test_a_role_without_an_am_role_is_refused(t_env: StreamTableEnvironment) -> None:
    with pytest.raises(PlanError, match=r"add_role\('worker'\) before add_am_role\(\)"):
        Cluster(t_env, name="plan").add_role("worker", RoleConfig(entry=_entry))


def test_a_second_am_role_is_refused(t_env: StreamTableEnvironment) -> None:
    with pytest.raises(PlanError, match="exactly one"):
        _cluster(t_env).add_am_role()


def test_a_role_name_is_taken_once(t_env: StreamTableEnvironment) -> None:
    cluster = _cluster(t_env)
    cluster.add_role("worker", RoleConfig(entry=_entry))
    with pytest.raises(PlanError, match="'worker' is there already"):
        cluster.add_role("worker", RoleConfig(entry=_entry))


def test_a_cluster_without_roles_is_not_submitted(t_env: StreamTableEnvironment) -> None:
    with pytest.raises(PlanError, match="has no roles"):
        _cluster(t_env).submit()


def test_an_entry_that_does_not_pickle_is_named(t_env: StreamTableEnvironment) -> None:
    lock = threading.Lock()

    def entry(ctx: Any) -> None:
        lock.acquire()

    with pytest.raises(PlanError, match=r"(?s)role 'worker'.*lock"):
        _cluster(t_env).add_role("worker", RoleConfig(entry=entry))


def test_an_updating_table_is_refused_with_a_way_out(t_env: StreamTableEnvironment) -> None:
    counts = t_env.sql_query(
        "SELECT x, COUNT(*) AS n FROM (VALUES (1), (1), (2)) AS t(x) GROUP BY x"
    )
    with pytest.raises(PlanError, match=r"(?s)updating table.*inner or temporal joins"):
        _cluster(t_env).add_role("worker", RoleConfig(entry=_entry), input=counts)


def test_a_role_that_another_role_of_its_cluster_feeds_is_refused_with_a_way_out(
    t_env: StreamTableEnvironment,
) -> None:
    cluster = _cluster(t_env)
    config = RoleConfig(entry=_entry)
    rows = cluster.add_role("first", config, output={"x": DataTypes.INT()})
    assert isinstance(rows, Table)
    t_env.create_temporary_view("first_rows", rows)
    behind = t_env.sql_query("SELECT x + 1 AS x FROM first_rows")
    with pytest.raises(PlanError, match=r"(?s)'second' comes from role 'first'.*chained_role"):
        cluster.add_role("second", config, input=behind)


def test_batch_runtime_mode_is_refused() -> None:
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_runtime_mode(RuntimeExecutionMode.BATCH)
    with pytest.raises(PlanError, match=r"execution\.runtime-mode is BATCH"):
        Cluster(env, name="plan")


def test_a_table_environment_without_data_streams_is_refused() -> None:
    t_env = TableEnvironment.create(EnvironmentSettings.in_streaming_mode())
    with pytest.raises(PlanError, match=r"StreamTableEnvironment\.create\(env\)"):
        Cluster(t_env, name="plan")


def test_an_unknown_state_machine_is_named_with_those_that_exist(
    t_env: StreamTableEnvironment,
) -> None:
    cluster = Cluster(t_env, name="plan")
    with pytest.raises(PlanError, match=r"(?s)'all_finsh'.*all_finish"):
        cluster.add_am_role(AMConfig(state_machine="all_finsh"))


def test_a_column_type_that_does_not_travel_is_named(t_env: StreamTableEnvironment) -> None:
    table = t_env.sql_query("SELECT INTERVAL '3' DAY AS pause_length")
    with pytest.raises(PlanError, match="pause_length"):
        _cluster(t_env).add_role("worker", RoleConfig(entry=_entry), input=table)


def test_an_output_that_is_no_schema_is_refused(t_env: StreamTableEnvironment) -> None:
    with pytest.raises(PlanError, match="not a PyFlink type"):
        _cluster(t_env).add_role(
            "worker",
            RoleConfig(entry=_entry),
            output={"x": "FLOAT"},
        )


def test_an_empty_output_is_refused(t_env: StreamTableEnvironment) -> None:
    with pytest.raises(PlanError, match="declares no column"):
        _cluster(t_env).add_role("worker", RoleConfig(entry=_entry), output=DataTypes.ROW([]))


def test_a_setting_that_cannot_work_offers_one_that_does() -> None:
    with pytest.raises(ConfigError, match=r"role\.parallelism=0 .* try 1"):
        RoleConfig(entry=_entry, parallelism=0)
