"""Memory for states: without a name, warm, and never written over while somebody reads it."""

from __future__ import annotations

import contextlib
import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.errors import ExchangeError
from headrace.exchange import StateFile, StateFiles, state_files
from tests.waiting import until

MIB = 1 << 20
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


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


def makers() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "headrace-state-file"]


def open_files() -> int:
    """How many state files are open; each has two descriptors, one of them the mapping's."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            if "memfd:headrace-state" in str(path.readlink()):
                found.add(path.stat().st_ino)
    return len(found)


def made_bytes(file: StateFile) -> int:
    """How much memory the file has."""
    return Path(file.offer.path).stat().st_blocks * 512


def faults_to_fill(file: StateFile) -> int:
    with file.memory as memory:
        content = b"x" * len(memory)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
        memory[:] = content
    return resource.getrusage(resource.RUSAGE_THREAD).ru_minflt - before


@pytest.mark.parametrize("advice", [state_files._POPULATE_WRITE, 9_999], ids=["new", "old"])
def test_the_first_file_is_made_ahead_and_filling_it_makes_no_page(
    files: StateFiles, monkeypatch: pytest.MonkeyPatch, advice: int
) -> None:
    """Also where the kernel does not know the advice."""
    monkeypatch.setattr(state_files, "_POPULATE_WRITE", advice)
    before = open_files()
    files.expect(64 * MIB)
    until(lambda: not makers(), "end of the thread", 10)
    assert open_files() == before + 1
    file = files.take(64 * MIB + 1_000)  # the next look at a state finds it a little larger
    assert file.number == 1
    assert 64 * MIB < made_bytes(file) < 65 * MIB
    assert faults_to_fill(file) < 64 * MIB / PAGE_BYTES / 20
    assert open_files() == before + 1


def test_a_file_that_is_wanted_while_it_is_made_is_handed_out_with_all_its_pages(
    files: StateFiles,
) -> None:
    files.expect(128 * MIB)
    assert makers()
    file = files.take(128 * MIB)
    assert file.number == 1
    assert not makers()
    assert made_bytes(file) > 128 * MIB
    assert faults_to_fill(file) < 128 * MIB / PAGE_BYTES / 20


def test_files_that_are_closed_while_one_is_made_leave_no_thread_and_no_descriptor() -> None:
    before = descriptors()
    files = StateFiles()
    files.expect(512 * MIB)
    assert makers()
    files.close()
    assert not makers()
    assert descriptors() == before
    files.close()


def test_filling_a_file_whose_pages_were_not_made_makes_them() -> None:
    """So the tests above would see it."""
    file = StateFile(1, 64 * MIB, is_cold=True)
    assert made_bytes(file) == 0
    assert faults_to_fill(file) > 64 * MIB / PAGE_BYTES / 20
    file.close()


def test_nothing_is_made_ahead_for_a_small_state_nor_behind_the_first(
    files: StateFiles,
) -> None:
    before = open_files()
    files.expect(MIB)
    assert (makers(), open_files()) == ([], before)
    lent(files, MIB)
    files.expect(64 * MIB)
    assert (makers(), open_files()) == ([], before + 1)


def test_the_file_is_made_anew_where_the_state_has_grown_before_it_was_taken(
    files: StateFiles,
) -> None:
    before = open_files()
    for size_bytes in (8 * MIB, 24 * MIB, 24 * MIB + 1_000, 8 * MIB):
        files.expect(size_bytes)
        assert open_files() == before + 1
    assert files.take(24 * MIB + 2_000).number == 2
    assert open_files() == before + 1


def test_a_state_that_is_larger_than_expected_gets_a_file_of_its_own(files: StateFiles) -> None:
    before = open_files()
    files.expect(8 * MIB)
    file = files.take(16 * MIB)
    assert len(file.memory) == 16 * MIB
    assert open_files() == before + 1
    assert not makers()


def test_without_room_ahead_it_is_the_capture_that_tells(files: StateFiles) -> None:
    before = open_files()
    files.expect(1 << 62)
    assert (makers(), open_files()) == ([], before)
    with pytest.raises(ExchangeError, match="No memory for the state"):
        files.take(1 << 62)


def test_another_file_is_made_while_this_process_reads_one(files: StateFiles) -> None:
    before = open_files()
    read = files.take(8 * MIB)
    read.is_read = True
    files.lend(read)
    until(lambda: not makers(), "end of the thread", 10)
    assert open_files() == before + 2
    assert files.give_back(read.number)
    second = files.take(8 * MIB)
    assert second.number == 2
    assert made_bytes(second) >= 8 * MIB
    files.lend(second)
    files.let_go(read)
    assert files.take(8 * MIB).number == read.number
    assert open_files() == before + 2, "no more than would be made anyway"


def test_a_file_that_nobody_reads_here_goes_to_and_fro_alone(files: StateFiles) -> None:
    before = open_files()
    for _ in range(3):
        file = lent(files, 8 * MIB)
        assert file.number == 1
        assert not makers()
        files.give_back(file.number)
    assert open_files() == before + 1
