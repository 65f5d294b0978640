"""Files that grow, read once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

__all__ = ["Growing"]


class Growing:
    """The lines of some files, each of them once.

    Args:
        folder: Where they are.
        pattern: Of their names.
    """

    def __init__(self, folder: Path, pattern: str) -> None:
        self._folder = folder
        self._pattern = pattern
        self._read: dict[Path, int] = {}

    def lines(self) -> Iterator[tuple[str, str]]:
        """Give name and line of what is new and complete since the last call."""
        for path in self._folder.glob(self._pattern):
            begin = self._read.get(path, 0)
            if path.stat().st_size <= begin:
                continue
            with path.open("rb") as file:
                file.seek(begin)
                text = file.read()
            text = text[: text.rfind(b"\n") + 1]
            self._read[path] = begin + len(text)
            for line in text.decode(errors="replace").splitlines():
                yield path.name, line
