"""The samples of code in README and guides."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["DOCUMENTS", "ROOT", "samples"]

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted(
    str(each.relative_to(ROOT)) for each in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
)


def samples(document: str, language: str) -> list[str]:
    """Return those of a language: "python" runs as it stands, "py" is a part of a program."""
    text = (ROOT / document).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)
