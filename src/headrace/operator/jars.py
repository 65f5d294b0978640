"""The jars that a job of ours needs, and how they reach the cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyflink
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import TableEnvironment

import headrace
from headrace.errors import PlanError

__all__ = ["add_jars", "add_sql_jars", "flink_python_jar", "headrace_jar"]


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


def add_jars(env: StreamExecutionEnvironment, j_configuration: Any) -> None:
    """Ship both jars with the job of `env`; doing it twice adds nothing.

    A session cluster has no `flink-python` on its class path, so it travels too. Where the
    parent class loader has it already (embedded cluster), Flink's parent-first rule for its own
    packages picks that one.
    """
    present = j_configuration.getString("pipeline.jars", "")
    wanted = [path.as_uri() for path in (headrace_jar(), flink_python_jar())]
    missing = [uri for uri in wanted if uri.removeprefix("file://") not in present]
    if missing:
        env.add_jars(*missing)


def add_sql_jars(t_env: TableEnvironment) -> None:
    """See `headrace.sql.add_jars`."""
    if not isinstance(t_env, TableEnvironment):
        msg = f"t_env is a {type(t_env).__name__}; SQL needs a TableEnvironment"
        raise PlanError(msg)
    # Flink looks for factories in what ADD JAR names, and not in `pipeline.jars`.
    for jar in (headrace_jar(), flink_python_jar()):
        t_env.execute_sql(f"ADD JAR '{jar}'")
