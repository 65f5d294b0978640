"""One JVM and one gateway per test process; every test makes environments of its own in it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

MakeEnvironment = Callable[..., StreamTableEnvironment]


@pytest.fixture
def make_t_env() -> MakeEnvironment:
    """Make a streaming table environment; keyword arguments are Flink options, `_` for `.`."""

    def make(parallelism: int = 1, **options: str) -> StreamTableEnvironment:
        env = StreamExecutionEnvironment.get_execution_environment()
        env.set_parallelism(parallelism)
        t_env = StreamTableEnvironment.create(env)
        for key, value in options.items():
            t_env.get_config().set(key.replace("__", "-").replace("_", "."), value)
        return t_env

    return make


@pytest.fixture
def t_env(make_t_env: MakeEnvironment) -> StreamTableEnvironment:
    """A streaming table environment with parallelism 1."""
    return make_t_env()
