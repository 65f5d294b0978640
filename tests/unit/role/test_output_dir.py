"""Directories that replace others are there as a whole, the new one or the former."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.framework.stopping import StopRequestedExit
from headrace.role import put_in_place


def folder(path: Path, text: str) -> Path:
    path.mkdir()
    (path / "graph").write_text(text)
    return path


def stop_behind(monkeypatch: pytest.MonkeyPatch, move: int) -> None:
    """Raise where a signal handler does: as the system call of that move returns."""
    replace, moves = Path.replace, []

    def replace_and_stop(path: Path, target: Path) -> Path:
        moved = replace(path, target)
        moves.append(moved)
        if len(moves) == move:
            raise StopRequestedExit
        return moved

    monkeypatch.setattr(Path, "replace", replace_and_stop)


@pytest.mark.parametrize(("move", "left"), [(1, "former"), (2, "new")])
def test_a_stop_between_two_moves_leaves_one_of_the_directories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: int, left: str
) -> None:
    path, draft = folder(tmp_path / "model", "former"), folder(tmp_path / "draft", "new")
    stop_behind(monkeypatch, move)
    with pytest.raises(StopRequestedExit):
        put_in_place(draft, path, aside=tmp_path / "aside")
    assert (path / "graph").read_text() == left


@pytest.mark.parametrize("form", ["directory", "link"])
def test_a_draft_that_cannot_be_moved_leaves_what_was_there(tmp_path: Path, form: str) -> None:
    path = tmp_path / "model"
    if form == "link":
        folder(tmp_path / "elsewhere", "former")
        path.symlink_to("elsewhere")
    else:
        folder(path, "former")
    (tmp_path / "hidden").mkdir()
    with pytest.raises(FileNotFoundError):
        put_in_place(tmp_path / "missing", path, aside=tmp_path / "hidden" / "aside")
    assert (path / "graph").read_text() == "former"


def test_a_directory_takes_the_place_of_another(tmp_path: Path) -> None:
    path, draft = folder(tmp_path / "model", "former"), folder(tmp_path / "draft", "new")
    put_in_place(draft, path, aside=tmp_path / "aside")
    assert (path / "graph").read_text() == "new"
    assert (tmp_path / "aside" / "graph").read_text() == "former"
