"""One JVM and one gateway per test process; every test makes environments of its own in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

from headrace.operator.environment import open_environment

from .jvm import make_environment, one_jvm
from .shelf import add_shelf
from .tensorflow_process import TensorFlowProcess, tensorflow_process

MakeEnvironment = Callable[..., StreamTableEnvironment]


@pytest.fixture(scope="session", autouse=True)
def jvm() -> Iterator[None]:
    """One JVM for all tests."""
    with one_jvm():
        yield


@pytest.fixture(scope="session")
def tensorflow() -> Iterator[TensorFlowProcess]:
    """TensorFlow in a process of its own."""
    with tensorflow_process() as process:
        yield process


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The scheme of a file system that only Flink can read."""
    add_shelf(tmp_path_factory.mktemp("shelf"))
    return "shelf://"


@pytest.fixture
def make_t_env() -> MakeEnvironment:
    """Make a streaming table environment; keyword arguments are Flink options.

    In their names `_` stands for `.` and `__` for `-`.
    """

    def make(parallelism: int = 1, **options: str) -> StreamTableEnvironment:
        named = {k.replace("__", "-").replace("_", "."): v for k, v in options.items()}
        return make_environment(named, parallelism=parallelism)

    return make


@pytest.fixture
def t_env(make_t_env: MakeEnvironment) -> StreamTableEnvironment:
    """A streaming table environment with parallelism 1."""
    return make_t_env()


@pytest.fixture
def classes(t_env: StreamTableEnvironment) -> Any:
    """The classes of the JVM, Headrace's own among them, by their names."""
    open_environment(t_env)
    return get_gateway().jvm
