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

from .java_classes import jar_of


@contextmanager
def one_jvm() -> Iterator[None]:
    """Start PyFlink's gateway JVM, and end it, as PyFlink never does.

    Does nothing where one runs already: whoever has started it ends it.
    """
    if pyflink.java_gateway._gateway is not None:
        yield
        return
    _switch_off_udf_server()
    compile_less()
    before = _children()
    # No name that the tests would take for something that a job has left.
    with tempfile.TemporaryDirectory(prefix="jvm-of-tests-") as folder:
        with warnings.catch_warnings(), _starting(_own_environment(Path(folder))):
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


def _own_environment(folder: Path) -> dict[str, str]:
    """What the environment of this JVM has, and not that of JVMs of child processes."""
    jar = jar_of(
        "org.headrace.testing.SharedRpcSystemLoader",
        "org.apache.flink.runtime.rpc.RpcSystemLoader",
        folder,
    )
    arguments = f"{os.environ['JVM_ARGS']} -Dheadrace.testing.folder={folder}"  # noqa: TID251 (its name)
    return {
        # A log file of its own: others write over a common one. Who has set it reads it.
        "FLINK_LOG_DIR": os.environ.get("FLINK_LOG_DIR", str(folder)),  # noqa: TID251 (its name)
        "FLINK_TESTING": "1",  # PyFlink puts FLINK_TEST_LIBS on the class path
        "FLINK_TEST_LIBS": str(jar),
        "JVM_ARGS": arguments,
    }


@contextmanager
def _starting(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}  # noqa: TID251 (PyFlink's names)
    os.environ.update(variables)  # noqa: TID251 (PyFlink's names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]  # noqa: TID251 (PyFlink's names)
            else:
                os.environ[name] = value  # noqa: TID251 (PyFlink's names)


def compile_less() -> None:
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
