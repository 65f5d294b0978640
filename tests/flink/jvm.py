"""The one JVM of a test process: PyFlink's gateway."""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyflink.java_gateway
from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment


@contextmanager
def one_jvm() -> Iterator[None]:
    """Start PyFlink's gateway JVM, and end it, as PyFlink never does.

    Does nothing where one runs already: whoever has started it ends it.
    """
    if pyflink.java_gateway._gateway is not None:
        yield
        return
    _switch_off_udf_server()
    _compile_less()
    before = _children()
    with tempfile.TemporaryDirectory(prefix="headrace-jvm-") as logs:
        with warnings.catch_warnings(), _logging_to(logs):
            warnings.simplefilter("ignore")  # of the Beam that PyFlink imports, and its Popen
            gateway = pyflink.java_gateway.get_gateway()
            StreamExecutionEnvironment.get_execution_environment()
        started = _children() - before
        yield
        gateway.shutdown()
        for pid in started:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def make_environment(
    options: Mapping[str, str] | None = None, *, parallelism: int = 1
) -> StreamTableEnvironment:
    """Make a streaming table environment with these Flink options."""
    configuration = Configuration()
    for key, value in (options or {}).items():
        configuration.set_string(key, value)
    env = StreamExecutionEnvironment.get_execution_environment(configuration)
    env.set_parallelism(parallelism)
    t_env = StreamTableEnvironment.create(env)
    for key, value in (options or {}).items():
        t_env.get_config().set(key, value)
    return t_env


def _switch_off_udf_server() -> None:
    """PyFlink starts a server for Python UDFs per environment and never ends it."""
    os.environ["_python_worker_execution_mode"] = "process"  # noqa: SIM112, TID251 (its name)


@contextmanager
def _logging_to(folder: str) -> Iterator[None]:
    """Give a JVM that is started here a log file of its own: others write over a common one."""
    if "FLINK_LOG_DIR" in os.environ:  # noqa: TID251 (its name)
        yield  # whoever started this process reads the log
        return
    os.environ["FLINK_LOG_DIR"] = folder  # noqa: TID251 (its name)
    try:
        yield
    finally:
        del os.environ["FLINK_LOG_DIR"]  # noqa: TID251 (its name)


def _compile_less() -> None:
    """Let JVMs compile quickly and not well, this one and those of child processes.

    Most jobs of tests are short: half of the time that they take a processor for is Java's
    compiler's otherwise.
    """
    os.environ.setdefault("JVM_ARGS", "-XX:TieredStopAtLevel=1")  # noqa: TID251 (its name)


def _children() -> set[int]:
    threads = Path(f"/proc/{os.getpid()}/task").iterdir()
    return {int(pid) for thread in threads for pid in (thread / "children").read_text().split()}


def is_waiting_for_a_slot() -> bool:
    """Whether a task of the mini-cluster has a row that its memory queue has no room for."""
    jvm = pyflink.java_gateway.get_gateway().jvm
    for thread, stack in jvm.java.lang.Thread.getAllStackTraces().items():
        if "worker" in thread.getName():
            methods = [frame.getMethodName() for frame in stack]
            if "startBatch" in methods and "yield" in methods:
                return True
    return False
