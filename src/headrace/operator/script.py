"""Runs the statements of a SQL file, one after the other."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path

from pyflink.common import Configuration
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import EnvironmentSettings, StatementSet, StreamTableEnvironment

from headrace.errors import PlanError
from headrace.operator.failure import cause_text
from headrace.operator.jars import add_sql_jars

__all__ = ["run_script", "split_statements"]

_PIECE = re.compile(  # "/*+" begins a hint, which is no comment
    r"(?P<comment>--[^\n]*|/\*(?!\+).*?\*/)|'(?:[^']|'')*'|`(?:[^`]|``)*`|(?P<end>;)|[^;'`/-]+|.",
    re.DOTALL,
)
_SET = re.compile(r"SET\s+'(?P<key>(?:[^']|'')+)'\s*=\s*'(?P<value>(?:[^']|'')*)'", re.I)
_MODE = "execution.runtime-mode"  # of the environment, for good
_OPENS_SET = re.compile(r"EXECUTE\s+STATEMENT\s+SET\b", re.IGNORECASE)
_CLOSES_SET = re.compile(r";\s*END\s*$", re.IGNORECASE)
_BEGIN = re.compile(r"BEGIN\s+STATEMENT\s+SET", re.IGNORECASE)
_END = re.compile(r"END", re.IGNORECASE)
_WAITS = re.compile(r"(INSERT|EXECUTE|CREATE\s+TABLE\b.*\bAS\s+SELECT)\b", re.I | re.DOTALL)


def split_statements(text: str) -> list[str]:
    """Return the statements of a text without comments; `;` ends one, not in quotes.

    `EXECUTE STATEMENT SET BEGIN ...; ...; END` is one statement. Hints (`/*+ ... */`) stay.
    """
    found: list[str] = []
    open_: list[str] = []
    for piece in _PIECE.finditer(text):
        if piece["comment"] is not None:
            open_.append(" ")
            continue
        if piece["end"] is None:
            open_.append(piece[0])
            continue
        statement = "".join(open_).strip()
        if _OPENS_SET.match(statement) and not _CLOSES_SET.search(statement):
            open_.append(";")
        else:
            found.append(statement)
            open_ = []
    return [each for each in [*found, "".join(open_).strip()] if each]


def run_script(path: Path) -> None:
    """Run a SQL file as the SQL client does with `-f`: every statement to its end, in order.

    Blocks until the last job has ended. What a query finds is printed.

    Args:
        path: The file. `SET 'key' = 'value'` sets an option for what follows; the runtime mode
            is set before any other statement. INSERTs between `BEGIN STATEMENT SET` and `END`
            are one job.

    Raises:
        PlanError: A statement failed, which the text names; the ones before it have run.
        OSError: The file cannot be read.
    """
    statements = split_statements(path.read_text())
    leading = list(takewhile(_SET.fullmatch, statements))
    try:
        t_env = _open_environment(leading)
    except Exception as exc:
        told = "; ".join(leading)
        msg = f"{path}: there can be no environment with [{told}]: {cause_text(exc)}"
        raise PlanError(msg) from exc
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


def _open_environment(leading: Sequence[str]) -> StreamTableEnvironment:
    """Return an environment with the options of the SETs that a file begins with."""
    chosen = Configuration()
    for statement in leading:
        chosen.set_string(*_option(statement))
    settings = EnvironmentSettings.new_instance().with_configuration(chosen).build()
    env = StreamExecutionEnvironment.get_execution_environment(chosen)
    return StreamTableEnvironment.create(env, settings)


def _option(statement: str) -> tuple[str, str]:
    """Return key and value of a SET."""
    option = _SET.fullmatch(statement)
    assert option is not None
    key, value = (text.replace("''", "'") for text in option.group("key", "value"))
    return key, value


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
    if _SET.fullmatch(statement):
        _set(t_env, *_option(statement))
        return None
    result = t_env.execute_sql(statement)
    if _WAITS.match(statement):
        result.wait()
    else:
        result.print()
    return None


def _set(t_env: StreamTableEnvironment, key: str, value: str) -> None:
    config = t_env.get_config()
    mode = config.get(_MODE, "STREAMING")
    if key == _MODE and value.upper() != mode.upper():
        msg = f"SET '{_MODE}' = '{value}' must come before any other statement; it is {mode}"
        raise PlanError(msg)
    config.set(key, value)
    if key == "execution.target":
        add_sql_jars(t_env)  # a cluster lacks what is on the class path of this program's JVM
