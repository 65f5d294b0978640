"""Runs the statements of a SQL file, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StatementSet, StreamTableEnvironment

from headrace.errors import PlanError
from headrace.operator.failure import cause_text
from headrace.operator.jars import add_sql_jars

__all__ = ["run_script", "split_statements"]

_PIECE = re.compile(
    r"(?P<comment>--[^\n]*|/\*.*?\*/)|'(?:[^']|'')*'|`(?:[^`]|``)*`|(?P<end>;)|.", re.DOTALL
)
_SET = re.compile(r"SET\s+'(?P<key>(?:[^']|'')+)'\s*=\s*'(?P<value>(?:[^']|'')*)'", re.I)
_OPENS_SET = re.compile(r"EXECUTE\s+STATEMENT\s+SET\b", re.IGNORECASE)
_CLOSES_SET = re.compile(r"\bEND\s*$", re.IGNORECASE)
_BEGIN = re.compile(r"BEGIN\s+STATEMENT\s+SET", re.IGNORECASE)
_END = re.compile(r"END", re.IGNORECASE)
_WAITS = re.compile(r"(INSERT|EXECUTE|CREATE\s+TABLE\b.*\bAS\s+SELECT)\b", re.I | re.DOTALL)


def split_statements(text: str) -> list[str]:
    """Return the statements of a text without comments; `;` ends one, not in quotes.

    `EXECUTE STATEMENT SET BEGIN ...; ...; END` is one statement.
    """
    found: list[str] = []
    open_: list[str] = []
    for piece in _PIECE.finditer(text):
        statement = "".join(open_).strip()
        if piece["comment"] is not None:
            open_.append(" ")
        elif piece["end"] is None:
            open_.append(piece[0])
        elif _OPENS_SET.match(statement) and not _CLOSES_SET.search(statement):
            open_.append(";")
        else:
            found.append(statement)
            open_ = []
    return [each for each in [*found, "".join(open_).strip()] if each]


def run_script(path: Path) -> None:
    """Run a SQL file as the SQL client does with `-f`: every statement to its end, in order.

    Blocks until the last job has ended. What a query finds is printed.

    Args:
        path: The file. `SET 'key' = 'value'` sets an option for what follows; INSERTs between
            `BEGIN STATEMENT SET` and `END` are one job.

    Raises:
        PlanError: A statement failed, which the text names; the ones before it have run.
        OSError: The file cannot be read.
    """
    statements = split_statements(path.read_text())
    env = StreamExecutionEnvironment.get_execution_environment()
    t_env = StreamTableEnvironment.create(env)
    add_sql_jars(t_env)
    together: StatementSet | None = None
    number = 0
    try:
        for number, statement in enumerate(statements):  # noqa: B007 - the error tells which
            together = _run(t_env, statement, together)
    except Exception as exc:
        told = f"{path}, statement {number + 1}:\n{statements[number]}"
        msg = f"{told}\nfailed: {cause_text(exc)}"
        raise PlanError(msg) from exc
    if together is not None:
        msg = f"{path}: BEGIN STATEMENT SET without END; its INSERTs did not run"
        raise PlanError(msg)


def _run(
    t_env: StreamTableEnvironment, statement: str, together: StatementSet | None
) -> StatementSet | None:
    """Run a statement; return the statement set that is open behind it."""
    if _BEGIN.fullmatch(statement):
        return t_env.create_statement_set()
    if together is not None:
        if _END.fullmatch(statement):
            together.execute().wait()
            return None
        together.add_insert_sql(statement)
        return together
    if option := _SET.fullmatch(statement):
        key, value = (text.replace("''", "'") for text in option.group("key", "value"))
        t_env.get_config().set(key, value)
        return None
    result = t_env.execute_sql(statement)
    if _WAITS.match(statement):
        result.wait()
    else:
        result.print()
    return None
