"""Tables as lists of Python rows."""

from __future__ import annotations

from typing import Any

import pytest
from pyflink.table import StreamTableEnvironment, Table

from headrace.operator.failure import cause_text

__all__ = ["failure_of", "rows_of", "values"]


def rows_of(table: Table) -> list[tuple[Any, ...]]:
    """Run the query; return its rows as they come."""
    with table.execute().collect() as found:
        return [tuple(row) for row in found]


def failure_of(table: Table) -> str:
    """Run the query, which fails; return the text of the cause."""
    with pytest.raises(Exception, match=r".") as caught:
        rows_of(table)
    return cause_text(caught.value)


def values(t_env: StreamTableEnvironment, columns: dict[str, str], *rows: str) -> Table:
    """Return a table of literals: column to its SQL type, and rows of SQL expressions."""
    names = ", ".join(f"c{i}" for i in range(len(columns)))
    casts = ", ".join(
        f"CAST(c{i} AS {kind}) AS `{name}`" for i, (name, kind) in enumerate(columns.items())
    )
    literals = ", ".join(f"({row})" for row in rows)
    return t_env.sql_query(f"SELECT {casts} FROM (VALUES {literals}) AS v({names})")
