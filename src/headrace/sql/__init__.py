"""Headrace in pure SQL: models for `ML_PREDICT`, and a table that trains what is inserted.

Flink's planner runs `python -m headrace.sql.planner`, which says what its operators carry.
Nothing here imports pyflink before it is needed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ["add_jars", "jars"]


def add_jars(t_env: Any) -> None:
    """Make the provider known to a table environment; its jars travel with every job of it.

    If its jobs are to run on a cluster, say so before: set `execution.target`.

    Args:
        t_env: Any `TableEnvironment` of PyFlink. Calling it twice adds nothing.

    Raises:
        PlanError: `t_env` is none, or the package was installed without its jar.

    Source: Flink's `ADD JAR`; docs/adr/0107.
    """
    from headrace.operator.jars import add_sql_jars

    add_sql_jars(t_env)


def jars() -> list[Path]:
    """Return the jars that a SQL client or gateway needs, each for an option `-j`.

    Raises:
        PlanError: The package was installed without its jar, or PyFlink is without its own.
    """
    from headrace.operator.jars import flink_python_jar, headrace_jar

    return [headrace_jar(), flink_python_jar()]
