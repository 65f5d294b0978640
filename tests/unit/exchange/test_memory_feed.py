"""The feed without Flink behaves as the queue does."""

from __future__ import annotations

import pyarrow as pa
import pytest

from headrace.errors import DataError, UsageError
from headrace.exchange import Barrier, Batch, Channel, End, Feed, MemoryFeed, Watermark

TABLE = pa.table({"x": list(range(10))})


def test_both_feeds_satisfy_the_protocol() -> None:
    memory: Feed = MemoryFeed()
    queue: type[Feed] = Channel
    assert memory.input_schema is None
    assert queue is Channel


def test_a_table_comes_in_batches_then_the_last_watermark_and_the_end() -> None:
    feed = MemoryFeed.of_table(TABLE, batch_rows=4)
    items = [feed.receive(timeout_s=None) for _ in range(6)]
    sizes = [item.columns.num_rows for item in items if isinstance(item, Batch)]
    assert sizes == [4, 4, 2]
    assert items[3:] == [Watermark((1 << 63) - 1), End(), End()]


def test_what_is_sent_is_made_to_fit_and_kept() -> None:
    feed = MemoryFeed(output_schema=pa.schema([("y", pa.float32())]))
    feed.send(pa.record_batch({"y": [1.0, 2.0]}))
    feed.send_watermark(5)
    feed.acknowledge(1)
    feed.send_end()
    assert feed.output.equals(pa.table({"y": pa.array([1.0, 2.0], pa.float32())}))
    assert feed.watermarks_ms == [(5, 2)]
    assert feed.acknowledged == [(1, 2)]
    with pytest.raises(UsageError, match="after the end"):
        feed.send(pa.record_batch({"y": [1.0]}))


def test_wrong_uses_are_told() -> None:
    feed = MemoryFeed([Barrier(1)], input_schema=TABLE.schema)
    assert feed.receive(timeout_s=None) == Barrier(1)
    assert feed.receive(timeout_s=0) is None
    with pytest.raises(UsageError, match="without an End"):
        feed.receive(timeout_s=None)
    with pytest.raises(UsageError, match="no output"):
        feed.send(pa.record_batch({"x": [1]}))
    with pytest.raises(UsageError, match="no input"):
        MemoryFeed().receive(timeout_s=0)
    with pytest.raises(DataError, match="missing: y"):
        MemoryFeed(output_schema=pa.schema([("y", pa.int64())])).send(
            pa.record_batch({"x": [1]})
        )
