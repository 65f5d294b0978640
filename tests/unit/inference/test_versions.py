"""Versions of a model at a path: told apart, loaded in the background, taken over once."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import threading
from pathlib import Path

import pytest

from headrace.framework.stopping import StopRequestedExit
from headrace.inference import successor
from headrace.inference.successor import SuccessorLoader
from headrace.inference.version import ModelVersion, version_at
from tests.waiting import until

SOON_S = 0.02


def put(path: Path, text: str) -> None:
    """Replace a file as those do who write beside it and rename."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def test_a_file_that_is_written_replaced_or_touched_is_another_version(tmp_path: Path) -> None:
    path = tmp_path / "model"
    assert version_at(path) is None
    put(path, "one")
    first = version_at(path)
    assert first is not None
    assert first == version_at(path)
    assert first.changed_ms == path.stat().st_mtime_ns // 1_000_000
    stamp = path.stat().st_mtime_ns
    put(path, "two")
    os.utime(path, ns=(stamp, stamp))
    second = version_at(path)
    assert second != first, "of the same size and age, and another file"
    os.utime(path, ns=(stamp, stamp + 5_000_000_000))
    third = version_at(path)
    assert third is not None
    assert third != second
    assert third.changed_ms == first.changed_ms + 5_000


def test_a_directory_is_a_version_of_all_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    (folder / "variables").mkdir(parents=True)
    assert version_at(folder) is None, "nothing is there yet"
    (folder / "graph").write_text("g")
    first = version_at(folder)
    (folder / "variables" / "0").write_text("v")
    second = version_at(folder)
    assert None not in (first, second)
    assert first != second


def test_a_link_that_points_elsewhere_is_another_version(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    link = tmp_path / "current"
    link.symlink_to("a")
    first = version_at(link)
    link.unlink()
    link.symlink_to("b")
    assert version_at(link) not in (first, None)
    link.unlink()
    link.symlink_to("a")
    assert version_at(link) == first, "back to the former one"


def test_links_in_a_circle_are_no_version(tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to("other")
    (tmp_path / "other").symlink_to("current")
    assert version_at(link) is None


def test_each_new_version_is_taken_once_and_the_latest_counts(tmp_path: Path) -> None:
    path = tmp_path / "model"
    put(path, "one")
    loads: list[str] = []

    def load(version: object) -> str:
        loads.append(path.read_text())
        return loads[-1]

    with SuccessorLoader(path, load, present=version_at(path), every_s=SOON_S) as successors:
        threading.Event().wait(10 * SOON_S)
        assert successors.take() is None, "what is in use is no news"
        put(path, "two")
        until(lambda: loads == ["two"], "the load of the second version")
        put(path, "three")
        until(lambda: loads == ["two", "three"], "the load of the third version")
        until(lambda: successors.take() == "three", "the third version")
        assert successors.take() is None
        path.unlink()
        threading.Event().wait(10 * SOON_S)
        assert successors.take() is None, "nothing is no version"
    assert successors.rejected == 0


@pytest.mark.parametrize("raised", [ValueError("not a model"), SystemExit("not a model")])
def test_a_broken_version_is_told_once_and_the_next_one_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, raised: BaseException
) -> None:
    path = tmp_path / "model"
    put(path, "one")
    loads: list[str] = []

    def load(version: object) -> str:
        loads.append(path.read_text())
        if loads[-1] == "broken":
            raise raised
        return loads[-1]

    with (
        caplog.at_level(logging.WARNING),
        SuccessorLoader(path, load, present=version_at(path), every_s=SOON_S) as successors,
    ):
        put(path, "broken")
        until(lambda: successors.rejected == 1, "the refusal")
        threading.Event().wait(10 * SOON_S)
        assert loads == ["broken"], "it is not tried again and again"
        assert successors.take() is None
        put(path, "two")
        until(lambda: successors.take() == "two", "the version after it")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert f"The new version of {path} cannot be used" in told[0]
    assert f"{type(raised).__name__}: not a model" in told[0]


def test_what_changes_while_it_is_loaded_is_loaded_again(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "file").write_text("one")
    loads: list[str] = []

    def load(version: object) -> str:
        text = (path / "file").read_text()
        loads.append(text)
        if text == "two":
            put(path / "file", "three")
        if text == "three" and len(loads) == 2:
            shutil.rmtree(path)
            raise FileNotFoundError(path)
        return text

    with SuccessorLoader(path, load, present=version_at(path), every_s=SOON_S) as successors:
        put(path / "file", "two")
        until(lambda: loads == ["two", "three"] and not path.exists(), "both loads")
        assert successors.take() is None
        assert successors.rejected == 0, "nobody is told of a version that is gone"
        path.mkdir()
        (path / "file").write_text("four")
        until(lambda: successors.take() == "four", "the version that stayed")


def test_a_file_system_that_fails_behind_a_load_is_told_and_the_next_version_counts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "current"

    def lead_to(name: str) -> None:
        put(tmp_path / name, name)
        (tmp_path / "new").symlink_to(name)
        (tmp_path / "new").replace(link)

    def load(version: ModelVersion) -> str:
        text = version.place.read_text()
        if text == "two":
            version.place.unlink()
        return text

    exists = Path.exists

    def exists_or_fails(path: Path) -> bool:
        if path == tmp_path / "two":
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", exists_or_fails)
    lead_to("one")
    with (
        caplog.at_level(logging.WARNING),
        SuccessorLoader(link, load, present=version_at(link), every_s=SOON_S) as successors,
    ):
        lead_to("two")
        until(lambda: caplog.records, "the warning")
        assert successors.take() is None
        lead_to("three")
        until(lambda: successors.take() == "three", "the version after it")
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert f"new version of {link} was loaded whole cannot be told" in told[0]
    assert "Input/output error" in told[0]


def test_the_block_does_not_end_before_a_load_has(tmp_path: Path) -> None:
    path = tmp_path / "model"
    put(path, "one")
    is_loading, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def load(version: object) -> None:
        is_loading.set()
        may_end.wait(5)
        ended.set()

    with SuccessorLoader(path, load, present=None, every_s=SOON_S):
        assert is_loading.wait(5)
        threading.Timer(0.2, may_end.set).start()
    assert ended.is_set()


def test_a_stop_does_not_wait_for_a_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(successor, "_CLOSE_S", 3600.0)
    path = tmp_path / "model"
    put(path, "one")
    is_loading, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def load(version: object) -> None:
        is_loading.set()
        may_end.wait()
        ended.set()

    loader = SuccessorLoader(path, load, present=None, every_s=SOON_S)

    def score() -> None:
        with loader:
            assert is_loading.wait(5)
            raise StopRequestedExit

    with pytest.raises(StopRequestedExit):
        score()
    assert not ended.is_set()
    may_end.set()
    loader._thread.join()
