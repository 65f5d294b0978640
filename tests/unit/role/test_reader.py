"""The reader as a value: items in, batches and acknowledgements out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ConfigError, UsageError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed, Watermark
from headrace.role import BatchReader, EpochEnded, InputEnded, PollResult, ReadyBatch

SCHEMA = pa.schema([("x", pa.int64())])


def batch(start: int, count: int, *, with_timestamps: bool = False) -> Batch:
    xs = pa.array(range(start, start + count), pa.int64())
    return Batch(pa.record_batch([xs], schema=SCHEMA), xs if with_timestamps else None)


def feed_of(*items: Item) -> MemoryFeed:
    return MemoryFeed(items, input_schema=SCHEMA)


def xs_of(result: PollResult | None) -> list[int]:
    assert isinstance(result, ReadyBatch), result
    xs: list[int] = result.columns.column(0).to_pylist()
    return xs


def run(reader: BatchReader) -> list[PollResult]:
    """Everything up to the end of the input."""
    results: list[PollResult] = []
    while not results or not isinstance(results[-1], InputEnded):
        result = reader.poll(None)
        assert result is not None
        results.append(result)
    return results


def batches_of(results: Iterable[PollResult | None]) -> list[list[int]]:
    return [xs_of(result) for result in results if isinstance(result, ReadyBatch)]


def test_batches_are_exact_except_the_last() -> None:
    reader = BatchReader(feed_of(batch(0, 4), batch(4, 5), batch(9, 1), End()), rows=4)
    results = run(reader)
    assert batches_of(results) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert results[-2:] == [EpochEnded(0), InputEnded()]
    assert reader.poll(None) == InputEnded()
    assert reader.rows_in == 10


def test_an_input_without_rows_still_has_its_epochs(tmp_path: Path) -> None:
    reader = BatchReader(feed_of(End()), rows=4, epochs=2, spool_dir=tmp_path)
    assert run(reader) == [EpochEnded(0), EpochEnded(1), InputEnded()]
    reader.close()


def test_a_poll_without_rows_is_idle_and_loses_nothing() -> None:
    feed = feed_of(batch(0, 3))
    reader = BatchReader(feed, rows=4)
    assert reader.poll(0) is None
    assert reader.poll(0.001) is None
    feed.add(batch(3, 1))
    assert xs_of(reader.poll(0)) == [0, 1, 2, 3]


def test_a_caller_that_groups_rows_itself_gets_those_that_are_there() -> None:
    feed = feed_of(batch(0, 5))
    reader = BatchReader(feed, rows=4)
    reader.allows_short = True
    assert batches_of([reader.poll(0), reader.poll(0.001)]) == [[0, 1, 2, 3], [4]]
    assert reader.poll(0.001) is None
    feed.add(batch(5, 4))
    assert xs_of(reader.poll(0)) == [5, 6, 7, 8]
    assert reader.poll(0) is None


def test_a_caller_that_takes_what_is_there_waits_for_the_first_row_only() -> None:
    feed = feed_of(batch(0, 7), batch(7, 2))
    reader = BatchReader(feed, rows=5)
    reader.takes_what_is_there = True
    assert xs_of(reader.poll(None)) == [0, 1, 2, 3, 4]
    assert xs_of(reader.poll(None)) == [5, 6, 7, 8]  # more would have to be waited for
    assert reader.poll(0) is None
    feed.add(batch(9, 1), End())
    assert xs_of(reader.poll(None)) == [9]
    assert isinstance(reader.poll(None), EpochEnded)


def test_a_barrier_cuts_and_is_acknowledged_when_the_rows_before_it_were_handled() -> None:
    feed = feed_of(batch(0, 6), Barrier(7), batch(6, 4), End())
    reader = BatchReader(feed, rows=4)
    assert xs_of(reader.poll(0)) == [0, 1, 2, 3]
    assert xs_of(reader.poll(0)) == [4, 5]
    assert feed.acknowledged == []
    assert xs_of(reader.poll(0)) == [6, 7, 8, 9]
    assert [checkpoint for checkpoint, _ in feed.acknowledged] == [7]


def test_a_batch_ahead_is_a_whole_one_and_nothing_is_said_before_the_first_is_settled() -> None:
    feed = feed_of(batch(0, 4), Watermark(3), batch(4, 4), Watermark(7), batch(8, 2))
    reader = BatchReader(feed, rows=4)
    reader.takes_what_is_there = True
    assert xs_of(reader.poll(0)) == [0, 1, 2, 3]
    assert xs_of(reader.poll_ahead()) == [4, 5, 6, 7]
    assert feed.watermarks_ms == []
    reader.settle(4)
    assert [stamp for stamp, _ in feed.watermarks_ms] == [3]
    assert reader.poll_ahead() is None  # two rows may become more
    reader.settle(4)
    assert [stamp for stamp, _ in feed.watermarks_ms] == [3, 7]
    assert xs_of(reader.poll(0)) == [8, 9]
    assert reader.rows_in == 10


def test_nothing_behind_a_barrier_or_the_end_is_taken_ahead() -> None:
    feed = feed_of(batch(0, 4), Barrier(7), batch(4, 4), End())
    reader = BatchReader(feed, rows=4)
    assert xs_of(reader.poll(0)) == [0, 1, 2, 3]
    assert reader.poll_ahead() is None
    assert feed.acknowledged == []
    assert xs_of(reader.poll(0)) == [4, 5, 6, 7]
    assert [checkpoint for checkpoint, _ in feed.acknowledged] == [7]
    assert reader.poll_ahead() is None
    assert reader.poll(0) == EpochEnded(0)
    assert reader.poll_ahead() is None


def test_a_barrier_and_a_watermark_wait_for_rows_that_were_put_back() -> None:
    arrived = batch(0, 10, with_timestamps=True)
    feed = feed_of(arrived, Watermark(9), Barrier(7), End())
    reader = BatchReader(feed, rows=4)
    reader.at_once = 3
    assert xs_of(reader.poll(0)) == [*range(8)]
    reader.put_back(4)
    assert reader.rows_in == 4
    reader.at_once = 1
    again = reader.poll(0)
    assert xs_of(again) == [4, 5, 6, 7]
    assert isinstance(again, ReadyBatch)
    assert again.timestamps_ms is not None
    assert again.timestamps_ms.to_pylist() == [4, 5, 6, 7]
    assert xs_of(reader.poll(0)) == [8, 9]
    assert (feed.acknowledged, feed.watermarks_ms) == ([], [])
    assert reader.poll(0) == EpochEnded(0)
    assert [checkpoint for checkpoint, _ in feed.acknowledged] == [7]
    assert [stamp for stamp, _ in feed.watermarks_ms] == [9]
    assert reader.rows_in == 10


def test_rows_of_a_later_pass_that_were_put_back_come_again(tmp_path: Path) -> None:
    reader = BatchReader(feed_of(batch(0, 10), End()), rows=2, epochs=2, spool_dir=tmp_path)
    reader.at_once = 4
    while reader.poll(0) != EpochEnded(0):
        pass
    assert xs_of(reader.poll(0)) == [*range(8)]
    reader.put_back(6)
    assert [x for xs in batches_of(run(reader)) for x in xs] == [*range(2, 10)]
    assert reader.rows_in == 10


def test_a_barrier_behind_rows_that_were_handled_is_acknowledged_at_once() -> None:
    feed = feed_of(batch(0, 4), Barrier(7))
    reader = BatchReader(feed, rows=4)
    assert xs_of(reader.poll(0)) == [0, 1, 2, 3]
    assert reader.poll(0) is None
    assert [checkpoint for checkpoint, _ in feed.acknowledged] == [7]


def test_barriers_in_a_row_are_acknowledged_one_after_the_other() -> None:
    feed = feed_of(Barrier(1), Barrier(2), batch(0, 1), Barrier(3), End())
    run(BatchReader(feed, rows=4))
    assert [checkpoint for checkpoint, _ in feed.acknowledged] == [1, 2, 3]


def test_a_watermark_waits_for_the_rows_before_it_and_cuts_nothing() -> None:
    feed = feed_of(batch(0, 3), Watermark(10), batch(3, 3), Watermark(20), End())
    reader = BatchReader(feed, rows=4)
    assert xs_of(reader.poll(0)) == [0, 1, 2, 3]
    assert feed.watermarks_ms == []
    assert xs_of(reader.poll(0)) == [4, 5]
    assert [ms for ms, _ in feed.watermarks_ms] == [10]
    assert reader.poll(0) == EpochEnded(0)
    assert [ms for ms, _ in feed.watermarks_ms] == [10, 20]


def test_a_watermark_without_rows_before_it_goes_on_at_once() -> None:
    feed = feed_of(Watermark(10))
    assert BatchReader(feed, rows=4).poll(0) is None
    assert [ms for ms, _ in feed.watermarks_ms] == [10]


def test_what_was_emitted_for_a_batch_leaves_before_its_watermark_and_barrier() -> None:
    feed = MemoryFeed(
        [batch(0, 2), Watermark(5), Barrier(1), End()],
        input_schema=SCHEMA,
        output_schema=SCHEMA,
    )
    reader = BatchReader(feed, rows=2)
    ready = reader.poll(0)
    assert isinstance(ready, ReadyBatch)
    feed.send(ready.columns)
    reader.poll(0)
    assert feed.watermarks_ms == [(5, 2)]
    assert feed.acknowledged == [(1, 2)]


def test_timestamps_travel_with_their_rows() -> None:
    reader = BatchReader(
        feed_of(batch(0, 3, with_timestamps=True), batch(3, 2), batch(5, 3), End()), rows=4
    )
    first, second = reader.poll(0), reader.poll(0)
    assert isinstance(first, ReadyBatch)
    assert first.timestamps_ms is not None
    assert first.timestamps_ms.to_pylist() == [0, 1, 2, None]
    assert isinstance(second, ReadyBatch)
    assert second.timestamps_ms is None


def test_later_epochs_have_the_same_rows_and_their_own_numbers(tmp_path: Path) -> None:
    items: list[Item] = [batch(0, 7), Barrier(1), batch(7, 6, with_timestamps=True), End()]
    reader = BatchReader(feed_of(*items), rows=5, epochs=3, spool_dir=tmp_path)
    results = run(reader)
    epochs: dict[int, list[list[int]]] = {0: [], 1: [], 2: []}
    for result in results:
        if isinstance(result, ReadyBatch):
            epochs[result.epoch].append(xs_of(result))
    assert epochs[0] == [[0, 1, 2, 3, 4], [5, 6], [7, 8, 9, 10, 11], [12]]
    assert epochs[1] == epochs[2] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12]]
    assert [result for result in results if isinstance(result, EpochEnded)] == [
        EpochEnded(0),
        EpochEnded(1),
        EpochEnded(2),
    ]
    assert reader.rows_in == 13
    assert reader.spool_bytes > 0
    reader.close()
    assert list(tmp_path.iterdir()) == []


def test_timestamps_travel_with_their_rows_in_later_epochs(tmp_path: Path) -> None:
    items: list[Item] = [batch(0, 4), batch(4, 4, with_timestamps=True), batch(8, 2), End()]
    reader = BatchReader(feed_of(*items), rows=3, epochs=2, spool_dir=tmp_path)
    stamps: list[list[list[int | None] | None]] = [[], []]
    for result in run(reader):
        if isinstance(result, ReadyBatch):
            of_rows = result.timestamps_ms
            stamps[result.epoch].append(None if of_rows is None else of_rows.to_pylist())
    assert stamps[0] == [None, [None, 4, 5], [6, 7, None], None]
    assert stamps[1] == stamps[0]
    reader.close()


def test_the_batch_size_may_change_in_the_middle_of_a_later_epoch(tmp_path: Path) -> None:
    rows = 40_000  # more than one batch of the spool's file
    reader = BatchReader(feed_of(batch(0, rows), End()), rows=7, epochs=3, spool_dir=tmp_path)
    while reader.poll(0) != EpochEnded(0):
        pass
    sizes = [7, 7, 1, 1000, 16_000, 3]
    xs: list[int] = []
    polls = 0
    while not isinstance(result := reader.poll(0), EpochEnded):
        xs += xs_of(result)
        polls += 1
        reader.rows = sizes[min(polls, len(sizes) - 1)]
    assert xs == list(range(rows))
    assert sum(xs_of(reader.poll(0))) == sum(range(3)), "the next pass begins at the first row"
    reader.close()


def test_a_barrier_waits_for_no_end_of_a_later_epoch(tmp_path: Path) -> None:
    feed = feed_of(batch(0, 100), End())
    instants = iter(range(1000))
    reader = BatchReader(
        feed, rows=1, epochs=2, spool_dir=tmp_path, clock=lambda: next(instants) / 1000
    )
    while reader.poll(0) != EpochEnded(0):
        pass
    reader.poll(0)
    feed.add(Barrier(3))
    polls = 0
    while not feed.acknowledged:
        assert isinstance(reader.poll(0), ReadyBatch)
        polls += 1
    assert polls <= 10  # of which each takes a millisecond here
    reader.close()


def test_watermarks_wait_for_the_last_epoch(tmp_path: Path) -> None:
    feed = feed_of(batch(0, 2), Watermark(5), batch(2, 2), Watermark(9), End())
    reader = BatchReader(feed, rows=2, epochs=2, spool_dir=tmp_path)
    while reader.poll(0) != EpochEnded(1):
        assert feed.watermarks_ms == []
    assert [ms for ms, _ in feed.watermarks_ms] == [9]
    reader.close()


def test_a_barrier_that_comes_during_later_epochs_is_acknowledged(tmp_path: Path) -> None:
    feed = feed_of(batch(0, 4), End())
    reader = BatchReader(feed, rows=2, epochs=2, spool_dir=tmp_path)
    while reader.poll(0) != EpochEnded(0):
        pass
    feed.add(Barrier(3))
    assert xs_of(reader.poll(0)) == [0, 1]
    assert [checkpoint for checkpoint, _ in feed.acknowledged] == [3]
    while reader.poll(0) != InputEnded():
        pass
    feed.add(Barrier(4))
    assert reader.poll(0) == InputEnded()
    assert [checkpoint for checkpoint, _ in feed.acknowledged] == [3, 4]
    reader.close()


def test_the_batch_size_may_change_between_polls() -> None:
    reader = BatchReader(feed_of(batch(0, 10), End()), rows=3)
    assert xs_of(reader.poll(0)) == [0, 1, 2]
    reader.rows = 5
    assert xs_of(reader.poll(0)) == [3, 4, 5, 6, 7]
    assert xs_of(reader.poll(0)) == [8, 9]


def test_every_poll_calls_the_hook() -> None:
    calls: list[int] = []
    reader = BatchReader(feed_of(End()), rows=1, on_poll=lambda: calls.append(1))
    run(reader)
    assert len(calls) == 2


def test_settings_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="rows=0"):
        BatchReader(feed_of(), rows=0)
    with pytest.raises(ConfigError, match="epochs=0"):
        BatchReader(feed_of(), rows=1, epochs=0)
    with pytest.raises(ConfigError, match="spool_dir"):
        BatchReader(feed_of(), rows=1, epochs=2)
    with pytest.raises(UsageError, match="no input"):
        BatchReader(MemoryFeed(), rows=1)


_STREAMS = st.lists(
    st.one_of(st.integers(1, 12), st.sampled_from(["watermark", "barrier"])), max_size=25
)


@given(_STREAMS, st.integers(1, 10), st.integers(1, 3))
def test_every_row_once_an_epoch_and_nothing_overtakes(
    tmp_path_factory: pytest.TempPathFactory, stream: list[int | str], rows: int, epochs: int
) -> None:
    items: list[Item] = []
    rows_before: dict[tuple[str, int], int] = {}
    start = 0
    for number, thing in enumerate(stream):
        if thing == "watermark":
            items.append(Watermark(number))
            rows_before["watermark", number] = start
        elif thing == "barrier":
            items.append(Barrier(number))
            rows_before["barrier", number] = start
        else:
            assert isinstance(thing, int)
            items.append(batch(start, thing))
            start += thing
    feed = MemoryFeed([*items, End()], input_schema=SCHEMA, output_schema=SCHEMA)
    spool_dir = tmp_path_factory.mktemp("spool")
    reader = BatchReader(feed, rows=rows, epochs=epochs, spool_dir=spool_dir)
    seen: list[list[int]] = [[] for _ in range(epochs)]
    while not isinstance(result := reader.poll(None), InputEnded):
        if isinstance(result, ReadyBatch):
            feed.send(result.columns)
            seen[result.epoch] += xs_of(result)
            assert result.columns.num_rows <= rows
    reader.close()
    assert seen == [list(range(start))] * epochs
    barriers = [number for name, number in rows_before if name == "barrier"]
    assert [number for number, _ in feed.acknowledged] == barriers
    for number, sent in feed.acknowledged:
        assert sent == rows_before["barrier", number]
    sent_watermarks = [ms for ms, _ in feed.watermarks_ms]
    assert sent_watermarks == sorted(sent_watermarks)
    for number, sent in feed.watermarks_ms:
        assert sent >= rows_before["watermark", number]
    last = max((n for name, n in rows_before if name == "watermark"), default=None)
    assert last is None or sent_watermarks[-1] == last


def test_a_role_that_emits_nothing_releases_every_later_barrier_at_its_end() -> None:
    feed = feed_of(batch(0, 2), End())
    reader = BatchReader(feed, rows=10)
    assert isinstance(reader.poll(0), ReadyBatch)
    assert not feed.is_every_acknowledged
    assert isinstance(reader.poll(0), EpochEnded)
    assert feed.is_every_acknowledged
