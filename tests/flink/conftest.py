"""One JVM and one gateway per test process; every test makes environments of its own in it."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pyflink.java_gateway
import pytest
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

MakeEnvironment = Callable[..., StreamTableEnvironment]


@pytest.fixture(scope="session", autouse=True)
def jvm() -> Iterator[None]:
    """Start PyFlink's gateway JVM once; end it after the last test, as PyFlink never does."""
    _switch_off_udf_server()
    before = _children()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the Beam that PyFlink imports, and its lost Popen
        gateway = pyflink.java_gateway.get_gateway()
        StreamExecutionEnvironment.get_execution_environment()
    started = _children() - before
    yield
    gateway.shutdown()
    for pid in started:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.fixture
def make_t_env() -> MakeEnvironment:
    """Make a streaming table environment; keyword arguments are Flink options.

    In their names `_` stands for `.` and `__` for `-`.
    """

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


def _switch_off_udf_server() -> None:
    """PyFlink starts a server for Python UDFs per environment and never ends it."""
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112, TID251 (its name)


def _children() -> set[int]:
    threads = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}
