"""The marks of workers say when all of them were back."""

from __future__ import annotations

from pathlib import Path

from tests.faults.kinds.growing import Growing
from tests.faults.kinds.marks import Marks


def test_a_job_is_back_when_all_workers_have_stepped_in_a_later_attempt(tmp_path: Path) -> None:
    marks = Marks(tmp_path, workers=2)
    (tmp_path / "0-11").write_text("1.0 1 1\n2.0 2 1\n")
    (tmp_path / "1-12").write_text("1.5 1 1\n2.0 2 1\n")
    assert marks.attempt() == 1
    assert marks.back_s(0) == 1.5
    assert marks.back_s(1) is None
    (tmp_path / "0-21").write_text("5.0 2 2\n")
    assert marks.back_s(1) is None, "worker 1 has not made a step, and will make none"
    (tmp_path / "0-31").write_text("7.0 2 3\n7.5 3 3\n")
    (tmp_path / "1-12").write_text("1.5 1 1\n2.0 2 1\n7.25 2 3\n")  # a host may use a pid again
    assert marks.back_s(1) == 7.25
    (tmp_path / "0-41").write_text("9.0 3 4\n")
    (tmp_path / "1-42").write_text("9.0 3 4\n")
    assert marks.back_s(1) == 7.25
    assert marks.attempt() == 4


def test_a_line_that_grows_is_read_once_when_it_is_complete(tmp_path: Path) -> None:
    growing = Growing(tmp_path, "*.log")
    assert [*growing.lines()] == []
    log = tmp_path / "a.log"
    log.write_text("one\ntw")
    (tmp_path / "a.txt").write_text("none\n")
    assert [*growing.lines()] == [("a.log", "one")]
    assert [*growing.lines()] == []
    with log.open("a") as file:
        file.write("o\nthree\n")
    assert [*growing.lines()] == [("a.log", "two"), ("a.log", "three")]
