"""Entries that later attempts find: whole or not at all, and the same for all."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError, UsageError
from headrace.framework.stopping import StopRequestedExit
from headrace.role.saved import latest_saved, list_saved, new_saved

NODE = "worker-0"


def save(directory: Path, step: int, attempt: int, text: str = "x", **settings: Any) -> None:
    with new_saved(directory, step, attempt, **{"node": NODE, **settings}) as path:
        path.write_text(text)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


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
        with new_saved(tmp_path, 3, 1, node=NODE) as path:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "weights").write_text(text)
    found = latest_saved(tmp_path, 2)
    assert found is not None
    assert (found / "deep" / "weights").read_text() == "second"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    def save_half() -> None:
        with new_saved(tmp_path, 3, 1, node=NODE) as path:
            path.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        save_half()
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_none_of_ours_is_no_entry(tmp_path: Path) -> None:
    (tmp_path / "step-7.attempt-1.bak").write_text("other")
    save(tmp_path, 1, 2, keep=1)
    assert latest_saved(tmp_path, 2) is None
    assert names(tmp_path) == ["step-000000000001.attempt-2", "step-7.attempt-1.bak"]


_KILLED = """
import os, signal, sys
from pathlib import Path

from headrace.role.saved import new_saved

kind, again = sys.argv[2:]
if again == "again":
    with new_saved(Path(sys.argv[1]), 7, 1, node="worker-0") as path:
        path.write_text("whole")
with new_saved(Path(sys.argv[1]), 7, 1, node="worker-0") as path:
    if kind == "directory":
        path.mkdir()
        path = path / "weights"
    path.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("kind", ["file", "directory"])
@pytest.mark.parametrize("again", ["first", "again"])
@pytest.mark.parametrize(
    ("attempt", "node"),
    [
        pytest.param(2, "chief-0", id="the-next-attempt"),
        pytest.param(1, NODE, id="the-node-itself"),
    ],
)
def test_nothing_half_is_seen_of_a_writer_that_is_killed_and_the_next_clears_up(
    tmp_path: Path, kind: str, again: str, attempt: int, node: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED, str(tmp_path), kind, again], check=False, timeout=60
    )
    assert done.returncode == -9
    assert len([name for name in names(tmp_path) if name.startswith(".")]) == 1
    found = latest_saved(tmp_path, 2)
    assert (found.read_text() if found else None) == ("whole" if again == "again" else None)
    save(tmp_path, 8, attempt, node=node)
    assert not [name for name in names(tmp_path) if name.startswith(".")]


def test_what_another_process_of_the_attempt_is_writing_stays(tmp_path: Path) -> None:
    with new_saved(tmp_path, 1, 2, node="chief-0") as path:
        path.write_text("by the chief")
        save(tmp_path, 2, 2, node="worker-0")
    assert names(tmp_path) == [f"step-{step:012d}.attempt-2" for step in (1, 2)]


def test_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(5):
        save(tmp_path, step, 1, keep=3)
    assert names(tmp_path) == [f"step-{step:012d}.attempt-1" for step in (2, 3, 4)]


def test_what_the_attempt_began_with_is_kept_however_old(tmp_path: Path) -> None:
    save(tmp_path, 5, 1)
    save(tmp_path, 9, 1)
    began_with = latest_saved(tmp_path, 2)
    for step in (10, 11, 12):
        save(tmp_path, step, 2, keep=1)
        assert latest_saved(tmp_path, 2) == began_with
    assert names(tmp_path) == ["step-000000000009.attempt-1", "step-000000000012.attempt-2"]


def test_what_was_just_saved_is_kept_also_under_a_lower_step(tmp_path: Path) -> None:
    save(tmp_path, 50, 1)
    save(tmp_path, 20, 1, keep=1)
    assert names(tmp_path) == [f"step-{step:012d}.attempt-1" for step in (20, 50)]


def test_directories_are_removed_whole(tmp_path: Path) -> None:
    for step in (1, 2):
        with new_saved(tmp_path, step, 1, node=NODE, keep=1) as path:
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "weights").write_text("x")
    assert names(tmp_path) == ["step-000000000002.attempt-1"]


def save_directory(directory: Path, file: str, node: str = NODE) -> None:
    with new_saved(directory, 1, 1, node=node) as path:
        path.mkdir()
        (path / file).touch()


def latest_files(directory: Path) -> list[str]:
    latest = latest_saved(directory, 2)
    assert latest is not None
    return names(latest)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_kill_while_a_directory_is_replaced_leaves_one_that_is_whole(
    tmp_path: Path, renames: int
) -> None:
    # Dies before the rename that puts the new one in place, or the one that hides the former.
    code = textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from headrace.role.saved import new_saved

        def dying(rename):
            def call(path, target):
                global left
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
                left -= 1
                return rename(path, target)
            return call

        left = {renames}
        with new_saved(Path({str(tmp_path)!r}), 1, 1, node={NODE!r}) as path:
            path.mkdir()
            (path / "second").touch()
            Path.rename, Path.replace = dying(Path.rename), dying(Path.replace)
    """)
    save_directory(tmp_path, "first")
    killed = subprocess.run([sys.executable, "-c", code], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert latest_files(tmp_path) == (["second"] if renames else ["first"])
    save_directory(tmp_path, "third")
    assert latest_files(tmp_path) == ["third"]
    assert len(names(tmp_path)) == 1


def test_a_stop_while_a_directory_is_replaced_leaves_the_former(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path, target: Path) -> Path:
        raise StopRequestedExit

    save_directory(tmp_path, "first")
    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(StopRequestedExit):
        save_directory(tmp_path, "second")
    assert len(names(tmp_path)) == 1
    assert latest_files(tmp_path) == ["first"]


@pytest.mark.parametrize("order", [("file", "directory"), ("directory", "file")])
def test_a_file_and_a_directory_replace_each_other(
    tmp_path: Path, order: tuple[str, str]
) -> None:
    for kind in order:
        if kind == "directory":
            save_directory(tmp_path, "x")
        else:
            save(tmp_path, 1, 1)
    assert len(names(tmp_path)) == 1
    latest = latest_saved(tmp_path, 2)
    assert latest is not None
    assert latest.is_dir() == (order[1] == "directory")


@pytest.mark.parametrize("rival", ["file", "directory"])
@pytest.mark.parametrize("own", ["file", "directory"])
def test_a_step_that_another_node_saves_at_the_same_time_is_whole(
    tmp_path: Path, own: str, rival: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = Path.replace

    def after_the_rival(path: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "replace", replace)
        if rival == "file":
            save(tmp_path, 1, 1, node="chief-0")
        else:
            save_directory(tmp_path, "the rival's", node="chief-0")
        return path.replace(target)

    monkeypatch.setattr(Path, "replace", after_the_rival)
    if own == "file":
        save(tmp_path, 1, 1)
    else:
        save_directory(tmp_path, "own")
    latest = latest_saved(tmp_path, 2)
    assert latest is not None
    assert latest.is_dir() == (own == "directory")
    assert own == "file" or names(latest) == ["own"]
    assert len(names(tmp_path)) == 1


def test_what_was_saved_twice_counts_once_among_those_that_are_kept(tmp_path: Path) -> None:
    save_directory(tmp_path, "x")
    (tmp_path / "step-000000000001.attempt-1.save-2").mkdir()  # by one that was killed then
    save(tmp_path, 2, 1, keep=2)
    assert [each.step for each in list_saved(tmp_path)] == [1, 1, 2]
    save(tmp_path, 3, 1, keep=2)
    assert [each.step for each in list_saved(tmp_path)] == [2, 3]


def test_a_block_that_writes_nothing_is_told(tmp_path: Path) -> None:
    offered = new_saved(tmp_path, 1, 1, node=NODE)
    with pytest.raises(UsageError, match="Nothing was written"), offered:
        pass
    with pytest.raises(ConfigError, match="step=-1"):
        save(tmp_path, -1, 1)
    with pytest.raises(ConfigError, match="keep=0"):
        save(tmp_path, 1, 1, keep=0)
    assert names(tmp_path) == []


def test_a_missing_directory_has_no_entries_and_is_made(tmp_path: Path) -> None:
    assert latest_saved(tmp_path / "new", 2) is None
    save(tmp_path / "new", 1, 1)
    assert latest_saved(tmp_path / "new", 2) is not None
