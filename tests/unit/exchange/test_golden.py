"""The golden files through a real segment: what Java laid out comes in, and goes out again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.exchange import Batch, Channel
from headrace.exchange.frames import BatchFrame
from headrace.role import to_numpy
from tests.unit.exchange import every_type
from tests.unit.exchange.peer import Peer

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
EXPECTED = every_type.batch()
LAST = EXPECTED.num_columns - 1
ROWS = EXPECTED.num_rows


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[tuple[Peer, Channel]]:
    wire = pa.ipc.read_schema(pa.py_buffer((GOLDEN / "every_type.schema").read_bytes()))
    schema = wire.remove(LAST)
    peer = Peer(tmp_path, input_schema=schema, output_schema=schema)
    channel = peer.open_channel()
    yield peer, channel
    channel.close()
    peer.close()


def receive_golden(peer: Peer, channel: Channel) -> Batch:
    message = (GOLDEN / "every_type.java").read_bytes()
    peer.segments["input"].put(1, message)
    peer.send(BatchFrame(1, len(message), ROWS))
    item = channel.receive(timeout_s=10)
    assert isinstance(item, Batch)
    return item


def test_the_batch_of_java_comes_in_as_it_is(queue: tuple[Peer, Channel]) -> None:
    item = receive_golden(*queue)
    item.columns.validate(full=True)
    assert item.columns.equals(EXPECTED.remove_column(LAST))
    assert item.timestamps_ms is not None
    assert item.timestamps_ms.equals(EXPECTED.column(LAST))


def test_sent_back_it_is_the_batch_of_python(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    item = receive_golden(peer, channel)
    channel.send(item.columns, item.timestamps_ms)
    frame = peer.expect(BatchFrame)
    got = peer.segments["output"].get(frame.slot, frame.message_bytes)
    assert frame.rows == ROWS
    assert peer.take_rows(frame).equals(EXPECTED)
    # Validity of what has no NULL may be written or left out; all else is the same.
    assert abs(len(got) - (GOLDEN / "every_type.python").stat().st_size) < 64 * LAST


def test_every_type_has_a_numpy_array(queue: tuple[Peer, Channel]) -> None:
    item = receive_golden(*queue)
    arrays = to_numpy(item.columns.drop_columns(["longs", "bools"]), nulls="mask")
    assert {len(array) for array in arrays.values()} == {ROWS}
    assert arrays["float32"].dtype == "float32"
    assert arrays["int64"][0] == 2**63 - 1
    assert arrays["int64__valid"].tolist() == [
        row["int64"] is not None for row in every_type.ROWS
    ]
    assert arrays["text"].tolist() == [row["text"] for row in every_type.ROWS]
    assert arrays["decimal38"].tolist() == [row["decimal38"] for row in every_type.ROWS]
    assert arrays["ts9"].astype("int64")[0] == 1388534399123456789
