"""docs/acceptance.md has a row for every promise; a row names tests, or says why not."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "acceptance.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
_NOT_HERE = "not here: "

PROMISED: dict[str, tuple[str, ...]] = {
    "Cluster life": (
        "with and without input, with and without output",
        "Registration is idempotent",
        "Missed heartbeats are noticed within the configured seconds",
        "stays finished through a later recovery",
        "killed while RUNNING comes back",
        "No master role is a plan error",
        "never listens, or no longer answers",
        "fails twice and then succeeds",
        "always fails: the job fails after `max_restarts`",
        "TensorFlow: worker 0 or the chief",
        "returns before its input is used up",
        "`ctx.stop_job()` ends all roles",
    ),
    "Data path": (
        "Every SQL type",
        "0, 1, batch-1, batch and batch+1 rows",
        "10 million rows",
        "larger than a slot, and than the whole queue",
        "output 100 times the input, both queues full at once",
        "Slow producer: a lone row arrives within `linger_ms`",
        "timestamps and watermarks arrive and come out in order",
        "Cancel ends within 5 s",
    ),
    "User code": (
        "Raises, calls `sys.exit`",
        "OOM killer",
        "Prints a million lines; writes megabytes without a newline",
        "Closes stdout",
        "Forks",
        "threads that never end",
        "Blocks SIGTERM",
        "closure, bound, class or static method",
        "Functions of `__main__` and of notebook cells",
        "shipped with `add_python_file`",
        "A module from `set_python_requirements` (local wheel)",
        "a module and a file from `add_python_archive`",
        "Another interpreter",
        "keeps its identity",
    ),
    "Training": (
        "One worker equals the plain loop bit for bit",
        "Several workers equal one process on the union",
        "on rows that Flink splits: even, 90/10, 0/100",
        "A worker that idles for seconds",
        "Every epoch sees every row once",
        "The source is read once",
        "Killed in epoch 2",
        "Savepoint, stop, start from it, and kill -9 at random moments",
        "Each checkpoint that completes gives a version of the model to serve",
        "trains a model and serves it meanwhile",
    ),
    "Faults": (
        "kill -9 and SIGSEGV of an algorithm process",
        "The same of a node",
        "The same of a master",
        "A frozen process",
        "A frozen node",
        "A frozen master",
        "kill -9, SIGSEGV and freezing of a TaskManager",
        "no process, also none that is frozen",
        "kill -9 of the Python process: the JVM's state is clean",
        "one job under one fault after the other",
        "the one of which the master hears first is the cause",
        "the checkpoint storage is full for a while",
    ),
    "Inference": (
        "Scores equal those of the model called directly",
        "A model path that is missing",
        "a model larger than memory",
    ),
    "Estimators": (
        "trains bit for bit as the plain loop",
        "Several workers decide the same",
        "the best model is kept",
        "`transform` scores as the model called directly",
        "read in another process",
        "told before a job is submitted",
        "A loss that is lost",
    ),
    "Hosts and security": (
        "within 5 s none of its processes and segments is left",
        "do not see each other",
        "Ports are bound before they are announced",
        "RPC without the job's token is refused",
        "open on the address of Flink's TaskManager only",
        "are limited at the master's port",
        "Nothing joins a star",
        "With Flink's internal TLS",
        "Keystores and settings of TLS that cannot work",
        "Random, truncated, damaged, repeated bytes and messages",
        "malformed, truncated, damaged and replayed bytes",
        "are for the owner only",
        "the link of a host is cut",
        "A TaskManager and then the JobManager are killed",
    ),
}
"""What was promised, by section of the page: words of the row that says it."""


def test_every_promise_has_its_row() -> None:
    rows = _rows()
    assert rows.keys() == PROMISED.keys()
    missing = {
        f"{section}: {promise}"
        for section, promises in PROMISED.items()
        for promise in promises
        if sum(promise in behaviour for behaviour, _ in rows[section]) != 1
    }
    assert missing == set(), "each must be in one row"


def test_every_test_named_on_the_page_exists() -> None:
    named = _TEST.findall(PAGE.read_text())
    assert named
    missing = [f"{path}::{name}" for path, name in named if name not in _functions(path)]
    assert missing == []


def test_every_behaviour_has_a_test_or_says_why_not() -> None:
    bare = [
        behaviour
        for rows in _rows().values()
        for behaviour, shown in rows
        if bool(_TEST.search(shown)) == shown.startswith(_NOT_HERE)
    ]
    assert bare == []


def _rows() -> dict[str, list[tuple[str, str]]]:
    """Behaviour and what shows it, by section."""
    rows: dict[str, list[tuple[str, str]]] = {}
    section: list[tuple[str, str]] = []
    for line in PAGE.read_text().splitlines():
        if line.startswith("## "):
            rows[line.removeprefix("## ")] = section = []
        elif line.startswith("| ") and not line.startswith("| behaviour"):
            behaviour, shown = line.removeprefix("| ").removesuffix(" |").rsplit(" | ", 1)
            section.append((behaviour, shown))
    return rows


def _functions(path: str) -> set[str]:
    file = ROOT / path
    if not file.exists():
        return set()
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
