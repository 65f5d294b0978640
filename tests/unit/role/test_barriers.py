"""Barriers of one process: answered at once or held for the others; the reader waits then."""

from __future__ import annotations

import itertools
import logging
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed, Watermark
from headrace.role import BatchReader, EpochEnded, InputEnded, PollResult, ReadyBatch
from headrace.role.barriers import Barriers
from headrace.role.dropping import drop_rows

SCHEMA = pa.schema([("x", pa.int64())])


def batch(start: int, count: int) -> Batch:
    xs = pa.array(range(start, start + count), pa.int64())
    return Batch(pa.record_batch([xs], schema=SCHEMA))


def xs_of(result: PollResult | None) -> list[int]:
    assert isinstance(result, ReadyBatch), result
    xs: list[int] = result.columns.column(0).to_pylist()
    return xs


class Held:
    """A reader whose barriers wait for other workers."""

    def __init__(self, *items: Item, epochs: int = 1, spool_dir: Path | None = None) -> None:
        self.feed = MemoryFeed(items, input_schema=SCHEMA)
        self.barriers = Barriers(self.feed)
        self.barriers.begin_common(-1)
        ticks = itertools.count()
        self.reader = BatchReader(
            self.feed,
            rows=4,
            epochs=epochs,
            spool_dir=spool_dir,
            clock=lambda: float(next(ticks)),
            barriers=self.barriers,
        )

    def place(self) -> tuple[int | None, list[int]]:
        """The barrier that is held, and those that were acknowledged."""
        return self.barriers.held, self.acknowledged

    @property
    def acknowledged(self) -> list[int]:
        return [checkpoint for checkpoint, _ in self.feed.acknowledged]


def test_no_row_behind_a_held_barrier_comes_before_it_is_answered() -> None:
    held = Held(batch(0, 6), Barrier(7), batch(6, 2), End())
    assert xs_of(held.reader.poll(0)) == [0, 1, 2, 3]
    assert xs_of(held.reader.poll(0)) == [4, 5]
    assert held.place() == (None, [])
    assert [held.reader.poll(0) for _ in range(3)] == [None] * 3
    assert held.place() == (7, [])
    held.barriers.answer_held()
    assert held.acknowledged == [7]
    assert not held.reader.is_at_barrier
    assert xs_of(held.reader.poll(0)) == [6, 7]


def test_rows_behind_a_barrier_come_when_it_is_dropped_and_it_is_not_acknowledged() -> None:
    held = Held(Barrier(7), batch(0, 4), Barrier(8))
    assert held.reader.poll(0) is None
    held.barriers.drop_held()
    assert xs_of(held.reader.poll(0)) == [0, 1, 2, 3]
    assert held.reader.poll(0) is None
    assert held.place() == (8, [])


def test_a_barrier_that_the_operator_aborts_is_dropped() -> None:
    held = Held(Barrier(7), batch(0, 4))
    assert held.reader.poll(0) is None
    held.feed.aborted_ids = {6}
    assert held.reader.poll(0) is None
    held.feed.aborted_ids = {7}
    assert xs_of(held.reader.poll(0)) == [0, 1, 2, 3]
    assert held.acknowledged == []


def test_a_barrier_that_was_aborted_before_it_was_reached_is_not_held() -> None:
    held = Held(batch(0, 4), Barrier(7), batch(4, 4))
    assert xs_of(held.reader.poll(0)) == [0, 1, 2, 3]
    held.feed.aborted_ids = {7}
    assert xs_of(held.reader.poll(0)) == [4, 5, 6, 7]
    assert held.acknowledged == []


def test_markers_of_the_operator_are_never_held() -> None:
    held = Held(Barrier(-3), Barrier(7), Barrier(-4), batch(0, 4))
    assert held.reader.poll(0) is None
    assert held.acknowledged == [-3]
    held.barriers.answer_held()
    assert xs_of(held.reader.poll(0)) == [0, 1, 2, 3]
    assert held.acknowledged == [-3, 7, -4]


def test_watermarks_before_a_held_barrier_pass_and_those_behind_it_wait() -> None:
    held = Held(Watermark(1), Barrier(7), Watermark(2), End())
    assert held.reader.poll(0) is None
    assert [stamp for stamp, _ in held.feed.watermarks_ms] == [1]
    held.barriers.answer_held()
    assert held.reader.poll(0) == EpochEnded(0)
    assert [stamp for stamp, _ in held.feed.watermarks_ms] == [1, 2]


def test_a_later_pass_stands_still_at_a_held_barrier(tmp_path: Path) -> None:
    held = Held(batch(0, 8), End(), Barrier(7), epochs=2, spool_dir=tmp_path)
    assert [xs_of(held.reader.poll(0)) for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert held.reader.poll(0) == EpochEnded(0)
    assert held.reader.poll(0) is None
    assert held.barriers.held == 7
    held.barriers.answer_held()
    assert [xs_of(held.reader.poll(0)) for _ in range(2)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    held.reader.close()


def test_behind_the_end_a_later_barrier_takes_the_place_of_one_that_is_held() -> None:
    held = Held(End(), Barrier(7), Barrier(8))
    assert held.reader.poll(0) == EpochEnded(0)
    assert held.reader.poll(0) == InputEnded()
    assert held.place() == (8, [])
    held.feed.add(Barrier(9))
    held.reader.attend()
    assert held.place() == (9, [])
    held.feed.aborted_ids = {9}
    held.reader.attend()
    assert held.place() == (None, [])


def test_the_common_end_answers_what_is_held_and_all_that_follows() -> None:
    held = Held(End(), Barrier(7))
    assert held.reader.poll(0) == EpochEnded(0)
    assert held.reader.poll(0) == InputEnded()
    assert not held.feed.is_every_acknowledged
    held.barriers.end_common()
    assert (held.acknowledged, held.feed.is_every_acknowledged) == ([7], True)
    held.barriers.end_common()
    held.feed.add(Barrier(8))
    held.reader.attend()
    assert held.acknowledged == [7, 8]


def test_rows_that_nobody_wants_are_dropped_up_to_a_held_barrier() -> None:
    behind = (batch(10, 1), End(), Barrier(8))
    held = Held(batch(0, 6), batch(6, 4), Watermark(5), Barrier(7), *behind)
    assert xs_of(held.reader.poll(0)) == [0, 1, 2, 3]
    for _ in range(2):
        drop_rows(held.reader)
    assert held.place() == (7, [])
    assert [stamp for stamp, _ in held.feed.watermarks_ms] == [5]
    held.barriers.answer_held()
    for _ in range(3):
        drop_rows(held.reader)
    assert held.reader.poll(0) == InputEnded()
    assert held.barriers.held == 8


def test_a_barrier_that_another_worker_answered_by_itself_is_declined(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held(Barrier(7), Barrier(8))
    held.barriers.begin_common(7)
    with caplog.at_level(logging.WARNING):
        assert held.reader.poll(0) is None
    assert held.place() == (8, [])
    assert held.feed.declined == [7]
    assert "Checkpoint 7 is declined" in caplog.text
