"""Versions appear as a whole, newest last, and are what their checkpoints hold."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ConfigError
from headrace.exchange import MemoryFeed, StateFile
from headrace.role.export_dir import ExportDirectory
from headrace.role.exports import Exports
from headrace.role.state_format import encode_state
from tests.waiting import until

LIMIT_S = 20.0


def opened(directory: Path, *, keep: int = 3, suffix: str = ".txt") -> ExportDirectory:
    place = ExportDirectory(directory, suffix=suffix, keep=keep)
    place.open()
    return place


def put(place: ExportDirectory, stem: str, text: str = "x") -> Path:
    return place.put(stem, lambda path: path.write_text(text))


def names(directory: Path) -> list[str]:
    return sorted(each.name for each in directory.iterdir())


def test_the_newest_stay_and_the_link_leads_to_the_last(tmp_path: Path) -> None:
    place = opened(tmp_path / "new" / "served", keep=2)
    assert not place.has_version
    for number in (7, 8, 10, 9):  # what is newest is told by when it came
        assert put(place, f"checkpoint-{number}", str(number)).read_text() == str(number)
        assert place.latest.read_text() == str(number)
    assert names(tmp_path / "new" / "served") == [
        "checkpoint-10.txt",
        "checkpoint-9.txt",
        "latest.txt",
    ]
    assert os.readlink(place.latest) == "checkpoint-9.txt", "the directory may be moved"  # noqa: PTH115


def test_a_new_process_goes_on_and_an_earlier_jobs_versions_are_the_older_ones(
    tmp_path: Path,
) -> None:
    place = opened(tmp_path, keep=3)
    for number, stem in enumerate(["initial", "checkpoint-57", "checkpoint-100"]):
        os.utime(put(place, stem), ns=(0, number * 10**9))
    for other in ("checkpoint-1.pt", "checkpoint-x.txt", "mine.txt"):
        tmp_path.joinpath(other).touch()
    again = opened(tmp_path, keep=3)
    assert again.has_version
    put(again, "checkpoint-1")
    put(again, "checkpoint-2")
    assert names(tmp_path) == [
        "checkpoint-1.pt",
        "checkpoint-1.txt",
        "checkpoint-100.txt",
        "checkpoint-2.txt",
        "checkpoint-x.txt",
        "latest.txt",
        "mine.txt",
    ]


def test_a_directory_of_the_same_name_is_replaced(tmp_path: Path) -> None:
    place = opened(tmp_path, suffix="")

    def write(path: Path) -> None:
        path.mkdir()
        (path / str(len(names(tmp_path)))).touch()

    place.put("checkpoint-3", write)
    place.put("checkpoint-3", write)
    assert names(tmp_path) == ["checkpoint-3", "latest"]
    assert names(place.latest) == ["3"]  # the draft's directory was there, too


def test_what_fails_half_way_is_not_seen_and_changes_nothing(tmp_path: Path) -> None:
    place = opened(tmp_path, keep=1)
    put(place, "checkpoint-1", "good")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        place.put("checkpoint-2", fail)
    assert names(tmp_path) == ["checkpoint-1.txt", "latest.txt"]
    assert place.latest.read_text() == "good"


def test_what_a_killed_process_was_at_is_removed_by_the_next(tmp_path: Path) -> None:
    program = """
        import os, signal, sys
        from pathlib import Path
        from headrace.role.export_dir import ExportDirectory
        place = ExportDirectory(Path(sys.argv[1]), suffix=".txt", keep=3)
        place.open()
        place.put("checkpoint-1", lambda path: path.write_text("whole"))
        def die(path):
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        place.put("checkpoint-2", die)
    """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], check=False
    )
    assert ended.returncode == -signal.SIGKILL
    seen = [name for name in names(tmp_path) if not name.startswith(".")]
    assert seen == ["checkpoint-1.txt", "latest.txt"]
    assert len(names(tmp_path)) == 3, "the draft"
    opened(tmp_path)
    assert names(tmp_path) == ["checkpoint-1.txt", "latest.txt"]


def test_a_directory_that_cannot_be_written_is_told_with_the_setting(tmp_path: Path) -> None:
    tmp_path.joinpath("file").touch()
    with pytest.raises(ConfigError, match=r"export_to=.*file/served.*cannot write there"):
        opened(tmp_path / "file" / "served")


class Written:
    """Writes the state as text, when it may; notes on which threads."""

    suffix = ".txt"

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.began: list[int] = []
        self.threads: set[str] = set()
        self.failing: set[int] = set()

    def write(self, state: Any, path: Path) -> None:
        self.threads.add(threading.current_thread().name)
        self.began.append(state)
        assert self.may_go_on.wait(LIMIT_S)
        if state in self.failing:
            raise OSError(28, "No space left on device")
        path.write_text(str(state))


class Job:
    """A feed and its exports; the state of a checkpoint is 100 times its id."""

    def __init__(self, directory: Path, keep: int = 10) -> None:
        self.written = Written()
        self.feed = MemoryFeed()
        self.place = opened(directory, keep=keep)
        self.exports = Exports(self.feed, self.place, "model", self.written)
        self.feed.on_complete(self.exports.complete)
        self.news: dict[str, float] = {}

    def barrier(self, checkpoint_id: int) -> StateFile:
        encoded = encode_state({"objects": {"model": 100 * checkpoint_id, "more": b"x" * 99}})
        file = self.feed.take_state(encoded.size_bytes)
        with file.memory as memory:
            encoded.write_to(memory)
        self.exports.offer(checkpoint_id, file)
        self.feed.acknowledge(checkpoint_id, file)  # and the credit at once
        return file

    def look(self) -> dict[str, float]:
        self.news.update(self.exports.collect())
        return self.news

    def until(self, name: str, value: float) -> None:
        until(lambda: self.look().get(name) == value, f"{name}={value}", LIMIT_S)


@contextmanager
def job(directory: Path, keep: int = 10) -> Iterator[Job]:
    made = Job(directory, keep)
    try:
        yield made
    finally:
        made.written.may_go_on.set()
        made.exports.close(LIMIT_S)


def test_a_version_has_the_state_of_its_checkpoint_whatever_came_after(tmp_path: Path) -> None:
    with job(tmp_path) as training:
        training.barrier(4)
        training.barrier(5)
        training.feed.complete(4)
        training.until("exported_checkpoint", 4)
        training.feed.complete(5)
        training.until("exported_checkpoint", 5)
        assert training.written.threads == {"headrace-export"}
    assert (tmp_path / "checkpoint-4.txt").read_text() == "400"
    assert (tmp_path / "latest.txt").read_text() == "500"


def test_what_did_not_complete_is_not_written(tmp_path: Path) -> None:
    with job(tmp_path) as training:
        for checkpoint_id in (1, 2, 3):  # 1 and 2 are aborted
            training.barrier(checkpoint_id)
        training.feed.complete(3)
        training.feed.complete(2)  # of what is known no more
        training.feed.complete(9)  # of what never was
        training.until("exported_checkpoint", 3)
    assert names(tmp_path) == ["checkpoint-3.txt", "latest.txt"]


def test_the_newest_wins_while_one_is_written_and_a_file_is_not_written_over(
    tmp_path: Path,
) -> None:
    with job(tmp_path) as training:
        training.written.may_go_on.clear()
        first = training.barrier(1)
        training.feed.complete(1)
        until(lambda: training.written.began == [100], "the first", LIMIT_S)
        for checkpoint_id in (2, 3, 4):
            assert training.barrier(checkpoint_id) is not first
            training.feed.complete(checkpoint_id)
            training.look()
        training.written.may_go_on.set()
        training.until("exported_checkpoint", 4)
        assert training.news["exports_skipped"] == 2
        assert training.feed.take_state(1).number <= 4, "files are used again"
    assert training.written.began == [100, 400]
    assert names(tmp_path) == ["checkpoint-1.txt", "checkpoint-4.txt", "latest.txt"]


def test_what_cannot_be_written_is_told_and_the_next_is_tried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with job(tmp_path) as training:
        training.written.failing = {200}
        for checkpoint_id, news in ((1, "exported_checkpoint"), (2, "exports_failed")):
            training.barrier(checkpoint_id)
            training.feed.complete(checkpoint_id)
            training.until(news, 1)
        assert "checkpoint 2 could not be written" in caplog.text
        assert "No space left on device" in caplog.text
        assert (tmp_path / "latest.txt").read_text() == "100"
        training.barrier(3)
        training.feed.complete(3)
        training.until("exported_checkpoint", 3)
    assert names(tmp_path) == ["checkpoint-1.txt", "checkpoint-3.txt", "latest.txt"]


def test_the_end_waits_for_what_is_due_and_no_longer_than_it_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with job(tmp_path) as training:
        training.barrier(1)
        training.feed.complete(1)
        training.feed.close()
        training.exports.close(LIMIT_S)
        assert (tmp_path / "latest.txt").read_text() == "100"
    with job(tmp_path) as training:
        training.written.may_go_on.clear()
        training.barrier(2)
        training.feed.complete(2)
        training.exports.close(0.05)
        assert "timeouts.stop_timeout_s" in caplog.text
    with job(tmp_path) as training:
        training.written.may_go_on.clear()
        training.barrier(3)
        training.feed.complete(3)
        until(lambda: training.written.began, "the third", LIMIT_S)
        training.barrier(4)
        training.feed.complete(4)
        training.exports.close(None)  # a process that fails drops what is due
    assert training.written.began == [300]
