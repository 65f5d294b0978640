"""A training of several roles, planned for any framework."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pyflink.table import DataTypes

from headrace.config import AMConfig, RoleConfig
from headrace.errors import PlanError
from headrace.operator.training import TrainingJob, plan_training

from .conftest import MakeEnvironment


def serve(ctx: Any) -> None:
    ctx.publish("weight", "2")
    for index in range(2):
        ctx.lookup(f"done-{index}", 60.0)
    ctx.report(is_fed=ctx.input_schema is not None, hosts=len(ctx.cluster["worker"]))


def work(ctx: Any) -> None:
    weight = int(ctx.lookup("weight", 60.0))
    for batch in ctx.batches(rows=10):
        ctx.emit({"y": weight * batch["x"]})
    ctx.publish(f"done-{ctx.index}", "yes")


ROLES = {"ps": RoleConfig(entry=serve), "worker": RoleConfig(entry=work, parallelism=2)}


def test_the_fed_role_gets_the_rows_and_emits_and_the_others_run_beside_it(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(2)
    rows = t_env.sql_query("SELECT x FROM (VALUES (1), (2), (3), (4), (5)) AS t(x)")
    job = TrainingJob(name="roles", master=AMConfig(), roles=ROLES)
    plan = plan_training(rows, job, output={"y": DataTypes.INT()})
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE results (y INT) WITH ('connector'='filesystem', "
        f"'path'='{(tmp_path / 'out').as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("results", plan.output)
    status = plan.submit(statements).wait().status
    files = [path for path in (tmp_path / "out").rglob("part-*") if path.is_file()]
    lines = [line for path in files for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["y"] for line in lines) == [2, 4, 6, 8, 10]
    assert status.nodes["ps-0"].report == {"is_fed": 0, "hosts": 2}
    assert status.rows_in == 5


def test_without_rows_no_role_is_fed_and_restarts_are_the_masters(tmp_path: Path) -> None:
    def once_more(ctx: Any) -> None:
        assert ctx.attempt > 1, "the first attempt fails"
        assert ctx.input_schema is None

    roles = {"worker": RoleConfig(entry=once_more, parallelism=2)}
    job = TrainingJob(name="files", master=AMConfig(max_restarts=1), roles=roles)
    plan = plan_training(None, job)
    assert plan.output is None
    assert plan.submit().wait().status.attempt == 2


def test_several_passes_need_an_input_that_ends(make_t_env: MakeEnvironment) -> None:
    t_env = make_t_env(1)
    t_env.execute_sql("CREATE TEMPORARY TABLE endless (x INT) WITH ('connector'='datagen')")
    rows = t_env.from_path("endless")
    job = TrainingJob(name="endless", master=AMConfig(), roles=ROLES, epochs=2)
    with pytest.raises(PlanError, match=r"epochs=2 needs an input that ends"):
        plan_training(rows, job)


def test_rows_need_a_role_to_go_to(make_t_env: MakeEnvironment) -> None:
    rows = make_t_env(1).sql_query("SELECT 1 AS x")
    job = TrainingJob(name="lost", master=AMConfig(), roles=ROLES, fed_role="chief")
    with pytest.raises(PlanError, match=r"fed_role='chief' must be one of .*'ps', 'worker'"):
        plan_training(rows, job)
