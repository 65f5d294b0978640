"""A Python environment that cannot be made: a clear error, at once, and no endless retries."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from pyflink.table import StreamTableEnvironment

import headrace.sql
from headrace.config import RoleConfig
from headrace.errors import JobFailedError
from headrace.operator import Cluster
from headrace.operator.environment import open_environment

from .conftest import MakeEnvironment
from .test_roles import numbers


@pytest.mark.parametrize("has_input", [False, True])
def test_a_wrong_interpreter_fails_the_job_for_good_and_is_named(
    make_t_env: MakeEnvironment, has_input: bool
) -> None:
    t_env = patient(make_t_env)
    t_env.get_config().set_python_executable("/no/such/python")
    assert "/no/such/python" in cause_of_failure(t_env, has_input=has_input)


def test_requirements_that_cannot_be_installed_fail_the_job_for_good_and_are_named(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = patient(make_t_env)
    (tmp_path / "requirements.txt").write_text("no-such-package-anywhere==1.0\n")
    (tmp_path / "wheels").mkdir()
    t_env.set_python_requirements(str(tmp_path / "requirements.txt"), str(tmp_path / "wheels"))
    assert "no-such-package-anywhere" in cause_of_failure(t_env, has_input=False)


@pytest.mark.parametrize(
    ("target", "names"),
    [("local", ["headrace"]), ("remote", ["flink-python", "headrace"])],
)
def test_flink_python_travels_only_to_where_it_is_not_on_the_class_path(
    make_t_env: MakeEnvironment, target: str, names: list[str]
) -> None:
    t_env = make_t_env(execution_target=target)
    headrace.sql.add_jars(t_env)
    in_sql = [row[0] for row in t_env.execute_sql("SHOW JARS").collect()]
    in_python = str(open_environment(t_env).option("pipeline.jars")).split(", ")
    for jars in (in_sql, in_python):
        found = re.findall(r"/(headrace|flink-python)[^/]*\.jar", " ".join(jars))
        assert sorted(found) == names
        assert len(jars) == len(names)


def patient(make_t_env: MakeEnvironment) -> StreamTableEnvironment:
    """An environment in which Flink would retry for an hour."""
    return make_t_env(
        restart__strategy_type="fixed-delay",
        restart__strategy_fixed__delay_attempts="3600",
        restart__strategy_fixed__delay_delay="1 s",
    )


def cause_of_failure(t_env: StreamTableEnvironment, *, has_input: bool) -> str:
    def entry(ctx: Any) -> None:
        return None

    cluster = Cluster(t_env, name="environment")
    cluster.add_am_role()
    rows = numbers(t_env, 10) if has_input else None
    cluster.add_role("worker", RoleConfig(entry=entry), input=rows)
    with pytest.raises(JobFailedError) as caught:
        cluster.submit().wait(timeout_s=100, show_progress=False)
    return caught.value.cause
