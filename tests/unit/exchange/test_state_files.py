"""Memory for states: without a name, warm, and never written over while somebody reads it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import ExchangeError
from headrace.exchange import StateFile, StateFiles

MIB = 1 << 20


@pytest.fixture
def files() -> Iterator[StateFiles]:
    made = StateFiles()
    yield made
    made.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def lent(files: StateFiles, size_bytes: int) -> StateFile:
    file = files.take(size_bytes)
    files.lend(file)
    return file


def test_others_of_this_user_read_what_was_written(files: StateFiles) -> None:
    file = files.take(10_000)
    with file.memory as memory:
        memory[:] = bytes(range(250)) * 40
    offer = file.offer
    assert (offer.number, offer.size_bytes) == (file.number, 10_000)
    read = Path(offer.path).read_bytes()
    assert read[:10_000] == bytes(range(250)) * 40
    assert Path(offer.path).stat().st_mode & 0o777 == 0o600
    assert "memfd:headrace-state" in str(Path(offer.path).readlink())


def test_a_file_is_used_again_after_its_credit_and_not_before(files: StateFiles) -> None:
    first = lent(files, MIB)
    second = lent(files, MIB)
    assert first.number != second.number
    assert files.is_out(second)
    assert files.give_back(second.number)
    assert not files.is_out(second)
    assert files.take(MIB // 2).number == second.number


def test_two_files_are_kept_and_more_are_freed(files: StateFiles) -> None:
    before = descriptors()
    numbers = [lent(files, MIB).number for _ in range(5)]
    most = descriptors()
    for number in numbers:
        assert files.give_back(number)
    assert descriptors() - before == 2 * (most - before) // 5


def test_a_larger_state_gets_a_new_file_in_place_of_the_small_one(files: StateFiles) -> None:
    small = lent(files, 5)
    before = descriptors()
    files.give_back(small.number)
    large = files.take(2 * MIB)
    assert large.number != small.number
    assert len(large.memory) == 2 * MIB
    assert descriptors() == before


@pytest.mark.parametrize("number", [0, 1, 77])
def test_a_credit_for_what_is_not_out_is_noticed(files: StateFiles, number: int) -> None:
    files.take(10)
    assert not files.give_back(number)


def test_what_the_reader_has_open_outlives_the_files() -> None:
    files = StateFiles()
    file = lent(files, 3)
    with file.memory as memory:
        memory[:] = b"abc"
    reader = os.open(file.offer.path, os.O_RDONLY)
    try:
        files.close()
        files.close()
        assert os.read(reader, 3) == b"abc"
    finally:
        os.close(reader)


def test_without_memory_the_error_says_for_what(files: StateFiles) -> None:
    before = descriptors()
    with pytest.raises(ExchangeError, match=r"No memory for the state of \d+ bytes"):
        files.take(1 << 62)
    assert descriptors() == before
