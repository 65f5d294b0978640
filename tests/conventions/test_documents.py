"""What the documents say is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from headrace.framework.machine import ALL_FINISH, diagram

ROOT = Path(__file__).resolve().parents[2]
DECISIONS = sorted((ROOT / "docs" / "adr").glob("*.md"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def test_decisions_are_numbered_without_doubles() -> None:
    numbers = [each.name[:4] for each in DECISIONS]
    assert all(re.fullmatch(r"\d{4}-[a-z0-9-]+\.md", each.name) for each in DECISIONS)
    assert len(numbers) == len(set(numbers))


@pytest.mark.parametrize("decision", DECISIONS, ids=lambda each: each.name)
def test_a_decision_has_number_date_context_decision_and_consequences(decision: Path) -> None:
    text = decision.read_text()
    assert text.startswith(f"# {decision.name[:4]}: ")
    assert re.search(r"^20\d\d-\d\d-\d\d\b", text, re.MULTILINE)
    for section in ("Context", "Decision", "Consequences"):
        assert f"**{section}.**" in text


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda each: each.name)
def test_links_to_files_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_the_state_diagram_is_that_of_the_shipped_machine() -> None:
    architecture = (ROOT / "ARCHITECTURE.md").read_text()
    wanted = diagram(ALL_FINISH.table)
    assert f"```mermaid\n{wanted.strip()}\n```" in architecture, (
        f"write this into ARCHITECTURE.md:\n{wanted}"
    )
