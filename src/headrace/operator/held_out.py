"""Two tables as the one input of a role: rows to train on, and rows that are held out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pyflink.java_gateway import get_gateway
from pyflink.table import Table
from pyflink.table.expressions import col, lit

from headrace.errors import PlanError
from headrace.operator.environment import open_environment
from headrace.operator.streams import environment_of, input_stream, is_bounded
from headrace.role import HELD_OUT

__all__ = ["column_types", "is_embedded", "mark_held_out", "require_ends", "select_columns"]

_OF_NO_MATTER = re.compile(r" NOT NULL|(?<=CHAR)\(\d+\)")


def mark_held_out(rows: Any, held_out: Any) -> Table:
    """Return the rows of both tables, with the column `HELD_OUT` behind the others.

    Raises:
        PlanError: They are no tables, or have different columns; the text has both sides.
    """
    mine, theirs = column_types(rows, "rows"), column_types(held_out, "held_out")
    if set(mine) - set(theirs):
        missing = ", ".join(name for name in mine if name not in theirs)
        msg = (
            f"The table of held-out rows has no column {missing}; it has {', '.join(theirs)}. "
            "It needs every column that is trained on"
        )
        raise PlanError(msg)
    for name, kind in mine.items():
        if theirs[name] != kind:
            msg = (
                f"Column {name!r} is {kind} in the rows to train on, and {theirs[name]} in "
                f"those that are held out. CAST it in SQL, for example CAST({name} AS {kind})"
            )
            raise PlanError(msg)
    columns = [col(name) for name in mine]
    mark = lit(True).alias(HELD_OUT)
    return rows.select(*columns, lit(False).alias(HELD_OUT)).union_all(
        held_out.select(*columns, mark)
    )


def select_columns(rows: Table, names: Sequence[str]) -> Table:
    """Return these columns of a table."""
    return rows.select(*[col(name) for name in names])


def column_types(rows: Any, parameter: str) -> dict[str, str]:
    """Return the columns of a table with Flink's names of their types, in order.

    Without NOT NULL and the lengths of texts, which make no difference to training.

    Args:
        rows: The table.
        parameter: What the caller's user calls it, for error texts.

    Raises:
        PlanError: `rows` is no Table.
    """
    if not isinstance(rows, Table):
        msg = (
            f"{parameter} is a {type(rows).__name__}, and must be a Table; make one of a "
            "DataStream with t_env.from_data_stream(stream)"
        )
        raise PlanError(msg)
    open_environment(environment_of(rows))  # brings the jar
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    j_type = builder.rowType(rows._j_table)  # noqa: SLF001 (no public way)
    return {
        field.getName(): _OF_NO_MATTER.sub("", field.getType().asSummaryString())
        for field in j_type.getFields()
    }


def require_ends(rows: Table, parameter: str, how: str = "") -> None:
    """Refuse a table that never ends; nothing of it is left in its environment.

    Args:
        rows: The table.
        parameter: What the caller's user calls it, for error texts.
        how: How else the caller's user may train on an endless one, for the error text.

    Raises:
        PlanError: A source of it is unbounded, or it cannot be planned.
    """
    flink = open_environment(environment_of(rows))
    before = flink.count_operators()
    try:
        j_stream, _ = input_stream(flink, parameter, rows)
        is_endless = not is_bounded(j_stream)
    finally:
        flink.forget_operators(before)
    if is_endless:
        msg = (
            f"A source of {parameter} is unbounded, so the training would never end. Give a "
            f"bounded one; to train on an endless stream,{how} write a training function"
        )
        raise PlanError(msg)


def is_embedded(rows: Table) -> bool:
    """Return whether the job of a table runs in a mini-cluster inside this program's JVM."""
    return open_environment(environment_of(rows)).is_embedded
