"""The jars that a job of ours needs, and how they reach the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyflink
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import TableEnvironment

import headrace
from headrace.errors import PlanError

__all__ = ["EMBEDDED", "add_jars", "add_sql_jars", "flink_python_jar", "headrace_jar"]


EMBEDDED = ("local", "minicluster")
"""The values of `execution.target` with which jobs run in the JVM of their program."""


def headrace_jar() -> Path:
    """Return the path of Headrace's own jar.

    Raises:
        PlanError: The package was installed without its jar (a source tree that was not built).
    """
    jar = Path(headrace.__file__).parent / "_jars" / "headrace.jar"
    if not jar.is_file():
        msg = (
            f"{jar} does not exist: this headrace was not built. "
            "Run `make java` in the source tree, or install the wheel."
        )
        raise PlanError(msg)
    return jar


def flink_python_jar() -> Path:
    """Return the path of the `flink-python` jar of the package `apache-flink-libraries`."""
    found = sorted((Path(pyflink.__file__).parent / "opt").glob("flink-python-*.jar"))
    if not found:
        msg = "pyflink/opt holds no flink-python jar; reinstall apache-flink-libraries"
        raise PlanError(msg)
    return found[-1]


def add_jars(
    env: StreamExecutionEnvironment, t_env: TableEnvironment, j_configuration: Any
) -> None:
    """Ship what a job of `env` needs; doing it twice adds nothing.

    Args:
        env: The environment.
        t_env: The table environment over it, whose options count for its jobs too.
        j_configuration: Flink's `Configuration` object of `env`.
    """
    present = j_configuration.getString("pipeline.jars", "")
    target = j_configuration.getString("execution.target", EMBEDDED[0])
    wanted = [path.as_uri() for path in _needed(target, _target_of(t_env))]
    missing = [uri for uri in wanted if uri.removeprefix("file://") not in present]
    if missing:
        env.add_jars(*missing)


def add_sql_jars(t_env: TableEnvironment) -> None:
    """See `headrace.sql.add_jars`."""
    if not isinstance(t_env, TableEnvironment):
        msg = f"t_env is a {type(t_env).__name__}; SQL needs a TableEnvironment"
        raise PlanError(msg)
    # Flink looks for factories in what ADD JAR names, and not in `pipeline.jars`.
    for jar in _needed(_target_of(t_env)):
        t_env.execute_sql(f"ADD JAR '{jar}'")


def _target_of(t_env: TableEnvironment) -> str:
    return str(t_env.get_config().get("execution.target", EMBEDDED[0]))


def _needed(*targets: str) -> list[Path]:
    """Return the jars that a job has to bring, for what is said of `execution.target`.

    A session cluster has no `flink-python` on its class path, so it travels too. The JVM of a
    PyFlink program has it: a mini-cluster in it would copy and hash its 43 MB with each job, to
    load nothing from there, since Flink's own packages come from the parent class loader.
    """
    is_embedded = all(target in EMBEDDED for target in targets)
    if is_embedded and _is_on_class_path("org/apache/flink/python/util/PythonConfigUtil.class"):
        return [headrace_jar()]
    return [headrace_jar(), flink_python_jar()]


def _is_on_class_path(name: str) -> bool:
    """Return whether this program's JVM itself finds a class file."""
    return get_gateway().jvm.ClassLoader.getSystemResource(name) is not None
