"""Entries that later attempts find: whole or not at all, and the same for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.errors import ConfigError, UsageError
from headrace.role.saved import latest_saved, new_saved


def save(directory: Path, step: int, attempt: int, text: str = "x") -> None:
    with new_saved(directory, step, attempt) as path:
        path.write_text(text)


def test_the_newest_entry_is_of_the_latest_attempt_and_its_highest_step(tmp_path: Path) -> None:
    save(tmp_path, 100, 1)
    save(tmp_path, 9, 2)
    save(tmp_path, 50, 2, "this")
    save(tmp_path, 20, 2)
    found = latest_saved(tmp_path, 3)
    assert found is not None
    assert found.read_text() == "this"


def test_what_the_own_attempt_writes_is_not_seen(tmp_path: Path) -> None:
    save(tmp_path, 1, 1, "old")
    save(tmp_path, 2, 2, "own")
    found = latest_saved(tmp_path, 2)
    assert found is not None
    assert found.read_text() == "old"
    assert latest_saved(tmp_path, 1) is None


def test_a_directory_is_an_entry_as_well_and_can_be_saved_again(tmp_path: Path) -> None:
    for text in ("first", "second"):
        with new_saved(tmp_path, 3, 1) as path:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "weights").write_text(text)
    found = latest_saved(tmp_path, 2)
    assert found is not None
    assert (found / "deep" / "weights").read_text() == "second"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def save_half() -> None:
        with new_saved(tmp_path, 3, 1) as path:
            path.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        save_half()
    assert list(tmp_path.iterdir()) == []


def test_a_draft_of_a_killed_process_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / ".step-000000000007.attempt-1.77").write_text("half")
    (tmp_path / "step-7.attempt-1.bak").write_text("other")
    assert latest_saved(tmp_path, 2) is None


def test_a_block_that_writes_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Nothing was written"), new_saved(tmp_path, 1, 1):
        pass
    with pytest.raises(ConfigError, match="step=-1"), new_saved(tmp_path, -1, 1):
        pass


def test_a_missing_directory_has_no_entries_and_is_made(tmp_path: Path) -> None:
    assert latest_saved(tmp_path / "new", 2) is None
    save(tmp_path / "new", 1, 1)
    assert latest_saved(tmp_path / "new", 2) is not None
