"""docs/acceptance.md names tests that exist, and leaves no promise without one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "acceptance.md"
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_named_on_the_page_exists() -> None:
    named = _TEST.findall(PAGE.read_text())
    assert named
    missing = [f"{path}::{name}" for path, name in named if name not in _functions(path)]
    assert missing == []


def test_every_behaviour_has_a_test_or_says_why_not() -> None:
    rows = [
        line.strip("| ").split(" | ")
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ") and not line.startswith("| behaviour")
    ]
    bare = [row[0] for row in rows if not _TEST.search(row[-1]) and "not here:" not in row[-1]]
    assert bare == []


def _functions(path: str) -> set[str]:
    file = ROOT / path
    if not file.exists():
        return set()
    tree = ast.parse(file.read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
