"""How a SQL file becomes statements."""

from __future__ import annotations

import pytest

from headrace.operator.script import split_statements

TOGETHER = "EXECUTE STATEMENT SET BEGIN INSERT INTO a SELECT 1; INSERT INTO b SELECT 2; END"
HINT = "SELECT /*+ BROADCAST(b) */ * FROM a /*+ OPTIONS('path'='/a;--b') */, b"
CASES = TOGETHER.replace("SELECT 1", "SELECT CASE WHEN x THEN 1 ELSE 2 END")


@pytest.mark.parametrize(
    ("text", "statements"),
    [
        ("SELECT 1;\nSELECT 2", ["SELECT 1", "SELECT 2"]),
        ("  ;; ", []),
        ("SELECT ';', 'it''s;', `a;b`;", ["SELECT ';', 'it''s;', `a;b`"]),
        ("-- no; statement\nSELECT 1 /* nor; this */ + 1;", ["SELECT 1   + 1"]),
        ("SELECT '-- text';", ["SELECT '-- text'"]),
        (f"{HINT}; SELECT 1;", [HINT, "SELECT 1"]),
        (f"{TOGETHER}; SELECT 1;", [TOGETHER, "SELECT 1"]),
        (f"{CASES}; SELECT 1;", [CASES, "SELECT 1"]),
    ],
    ids=[
        "two",
        "empty",
        "quotes",
        "comments",
        "quoted comment",
        "hints",
        "statement set",
        "statement set with CASE",
    ],
)
def test_a_semicolon_ends_a_statement_but_not_in_quotes_comments_and_sets(
    text: str, statements: list[str]
) -> None:
    assert split_statements(text) == statements
