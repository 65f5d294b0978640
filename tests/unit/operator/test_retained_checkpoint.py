"""Where a failed job's last checkpoint is, said as well as it is known."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.operator.retained_checkpoint import RetainedCheckpoint

JOB = "0123456789abcdef0123456789abcdef"


def complete(folder: Path, *numbers: int) -> None:
    for number in numbers:
        checkpoint = folder / JOB / f"chk-{number}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "_metadata").touch()


def test_of_a_directory_of_this_host_the_newest_that_is_complete_is_named(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "with space"
    complete(folder, 9, 10)
    (folder / JOB / "chk-11").mkdir()
    (folder / JOB / "chk-old").mkdir()
    (folder / JOB / "chk-old" / "_metadata").touch()
    (folder / JOB / "shared").mkdir()
    for given in (folder.as_uri(), f"{folder.as_uri()}/", str(folder)):
        told = RetainedCheckpoint(given).advice(JOB)
        assert told.endswith(f" set to {given.rstrip('/')}/{JOB}/chk-10.")


def test_what_another_user_keeps_to_himself_is_said_as_what_is_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete(tmp_path, 3)

    def refuse(folder: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(folder))

    monkeypatch.setattr(Path, "iterdir", refuse)  # root may read everything
    told = RetainedCheckpoint(tmp_path.as_uri()).advice(JOB)
    assert f"{JOB}/chk-<number>, if one had completed" in told


def test_jobs_in_one_directory_are_not_told_apart(tmp_path: Path) -> None:
    (tmp_path / "chk-4").mkdir()
    told = RetainedCheckpoint(tmp_path.as_uri(), has_subdir=False).advice(JOB)
    assert f" set to {tmp_path.as_uri()}/chk-<number>, if one had completed." in told


def test_where_none_is_complete_nothing_is_said(tmp_path: Path) -> None:
    (tmp_path / JOB / "chk-1").mkdir(parents=True)
    assert RetainedCheckpoint(tmp_path.as_uri()).advice(JOB) == ""


def test_elsewhere_the_place_is_said_and_that_it_may_be_empty(tmp_path: Path) -> None:
    for given in ("s3://bucket/cp", (tmp_path / "of another host").as_uri()):
        told = RetainedCheckpoint(given).advice(JOB)
        assert f" set to {given}/{JOB}/chk-<number>, if one had completed." in told
    of_cluster = RetainedCheckpoint(None).advice(JOB)
    assert f" <execution.checkpointing.dir of the cluster>/{JOB}/chk-<number>" in of_cluster
