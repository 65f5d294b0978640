from __future__ import annotations

from time import monotonic

import pyarrow as pa

from headrace.exchange import Batch, End
from headrace.testing import Pause
from headrace.testing.feed import TableFeed

TABLE = pa.table({"n": list(range(6))})


def take(feed: TableFeed, timeout_s: float = 0.0) -> list[int] | End | None:
    item = feed.receive(timeout_s=timeout_s)
    if isinstance(item, Batch):
        numbers: list[int] = item.columns["n"].to_pylist()
        return numbers
    assert item is None or isinstance(item, End)
    return item


def test_rows_come_in_batches_and_end() -> None:
    feed = TableFeed(TABLE, batch_rows=4)
    assert [take(feed) for _ in range(4)] == [[0, 1, 2, 3], [4, 5], End(), End()]


def test_a_pause_lies_between_two_rows() -> None:
    feed = TableFeed(TABLE, faults=[Pause(worker=0, after_rows=2, for_s=0.05)])
    assert take(feed) == [0, 1]
    begin = monotonic()
    assert take(feed) is None
    assert take(feed, timeout_s=10.0) == [2, 3, 4, 5]
    assert monotonic() - begin >= 0.05
    assert take(feed) == End()


def test_a_pause_does_not_outlast_the_time_out() -> None:
    feed = TableFeed(TABLE, faults=[Pause(worker=0, after_rows=0, for_s=60.0)])
    begin = monotonic()
    assert take(feed, timeout_s=0.02) is None
    assert monotonic() - begin < 0.02 + 1.0  # a busy machine


def test_a_pause_behind_the_last_row_comes_before_the_end() -> None:
    feed = TableFeed(TABLE, faults=[Pause(worker=0, after_rows=99, for_s=0.01)])
    assert take(feed) == [0, 1, 2, 3, 4, 5]
    assert take(feed) is None
    assert take(feed, timeout_s=10.0) == End()
