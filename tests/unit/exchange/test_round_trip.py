"""Every type in both directions, bit for bit; and both directions at once."""

from __future__ import annotations

import random
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.exchange import Barrier, Batch, Channel, End
from headrace.exchange.frames import (
    BarrierAckFrame,
    BarrierFrame,
    BatchFrame,
    CreditFrame,
    EndFrame,
    Frame,
    OversizeCreditFrame,
    OversizeFrame,
)
from tests.unit.exchange.peer import Peer, in_thread


def _ints(bits: int) -> st.SearchStrategy[int]:
    return st.integers(-(1 << (bits - 1)), (1 << (bits - 1)) - 1)


_KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "boolean": (pa.bool_(), st.booleans()),
    "int8": (pa.int8(), _ints(8)),
    "int16": (pa.int16(), _ints(16)),
    "int32": (pa.int32(), _ints(32)),
    "int64": (pa.int64(), _ints(64)),
    "float32": (pa.float32(), st.floats(width=32)),
    "float64": (pa.float64(), st.floats()),
    "decimal": (
        pa.decimal128(38, 3),
        st.integers(-(10**38) + 1, 10**38 - 1).map(lambda value: Decimal(f"{value}e-3")),
    ),
    "text": (pa.utf8(), st.text(max_size=20)),
    "bytes": (pa.binary(), st.binary(max_size=20)),
    "date": (pa.date32(), st.integers(-100_000, 100_000)),
    "time32": (pa.time32("ms"), st.integers(0, 86_399_999)),
    "time64": (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
    "timestamp": (pa.timestamp("ns"), _ints(64)),
    "timestamp_ltz": (pa.timestamp("ms", "UTC"), st.integers(-(10**14), 10**14)),
    "ints": (pa.list_(pa.int32()), st.lists(st.none() | _ints(32), max_size=5)),
    "bools": (pa.list_(pa.bool_()), st.lists(st.booleans(), max_size=9)),
    "texts": (pa.list_(pa.utf8()), st.lists(st.none() | st.text(max_size=3), max_size=3)),
    "row": (
        pa.struct([("a", pa.int8()), ("b", pa.utf8())]),
        st.fixed_dictionaries({"a": st.none() | _ints(8), "b": st.text(max_size=3)}),
    ),
    "map": (
        pa.map_(pa.utf8(), pa.int64()),
        st.lists(st.tuples(st.text(max_size=3), st.none() | _ints(64)), max_size=3),
    ),
}
SCHEMA = pa.schema([(name, kind) for name, (kind, _) in _KINDS.items()])
_ROW = st.fixed_dictionaries({name: st.none() | values for name, (_, values) in _KINDS.items()})


def _bits(column: pa.Array) -> list[Any]:
    """Values that tell NaN from NaN and 0.0 from -0.0."""
    if pa.types.is_floating(column.type):
        view = {pa.float32(): pa.int32(), pa.float64(): pa.int64()}[column.type]
        return pa.concat_arrays([column]).view(view).to_pylist()  # type: ignore[no-any-return]
    if pa.types.is_temporal(column.type):
        width = pa.int32() if column.type.bit_width == 32 else pa.int64()
        return column.cast(width).to_pylist()  # type: ignore[no-any-return]
    return column.to_pylist()  # type: ignore[no-any-return]


def assert_same(got: pa.RecordBatch, expected: pa.RecordBatch) -> None:
    assert got.schema.names == expected.schema.names
    for name in expected.schema.names:
        assert got.column(name).type == expected.column(name).type
        assert _bits(got.column(name)) == _bits(expected.column(name)), name


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Peer, Channel]]:
    directory = tmp_path_factory.mktemp("queue")
    peer = Peer(directory, input_schema=SCHEMA, output_schema=SCHEMA, slots=4)
    channel = peer.open_channel()
    yield peer, channel
    channel.close()
    peer.close()


@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_ROW, min_size=1, max_size=6), st.data())
def test_every_type_survives_both_directions(
    queue: tuple[Peer, Channel], values: list[dict[str, Any]], data: st.DataObject
) -> None:
    peer, channel = queue
    columns = [pa.array([row[field.name] for row in values], field.type) for field in SCHEMA]
    whole = pa.RecordBatch.from_arrays(columns, schema=SCHEMA)
    start = data.draw(st.integers(0, len(values) - 1))
    batch = whole.slice(start, data.draw(st.integers(1, len(values) - start)))
    stamps = pa.array(
        [data.draw(st.none() | _ints(64)) for _ in range(batch.num_rows)], pa.int64()
    )

    channel.send(batch, stamps)
    while isinstance(frame := peer.next_frame(), CreditFrame):
        peer.free_slots.append(frame.slot)
    got = peer.take_rows(frame)
    assert_same(got.remove_column(len(SCHEMA)), batch)
    assert got.column(len(SCHEMA)).equals(stamps)

    peer.send_rows(batch, stamps)
    item = channel.receive(timeout_s=10)
    assert isinstance(item, Batch)
    assert_same(item.columns, batch)
    if stamps.null_count == len(stamps):
        assert item.timestamps_ms is None
    else:
        assert item.timestamps_ms is not None
        assert item.timestamps_ms.equals(stamps)


NUMBERS = pa.schema([("x", pa.int64()), ("filler", pa.binary())])


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_when_both_sides_are_full_and_rows_are_of_any_size(
    tmp_path: Path, seed: int
) -> None:
    """The process echoes; the peer writes when it may, gives credits late, and counts."""
    chance = random.Random(seed)
    peer = Peer(tmp_path, input_schema=NUMBERS, output_schema=NUMBERS, slots=3, slot_bytes=8192)
    channel = peer.open_channel()
    total = 600
    echoed: list[int] = []
    acknowledged: list[tuple[int, int]] = []
    late: list[Frame] = []
    sizes = [chance.choice([0, 10, 1000, 3000, 20_000]) for _ in range(total)]

    def on_frame(frame: Frame | None) -> None:
        if isinstance(frame, CreditFrame):
            peer.free_slots.append(frame.slot)
        elif isinstance(frame, BatchFrame | OversizeFrame):
            late.append(frame)
        elif isinstance(frame, BarrierAckFrame):
            take_late()
            acknowledged.append((frame.checkpoint_id, len(echoed)))

    def take_late() -> None:
        while late:
            got = peer.take_rows(late.pop(0))
            for x, filler in zip(*(got.column(i).to_pylist() for i in (0, 1)), strict=True):
                assert len(filler) == sizes[x]
                echoed.append(x)

    def play() -> None:
        x = 0
        while x < total:
            if sizes[x] > 5000:
                path = tmp_path / "large"
                message = peer.message(numbers(x, 1))
                path.write_bytes(message)
                peer.send(OversizeFrame(len(message), str(path)))
                while not isinstance(frame := peer.next_frame(), OversizeCreditFrame):
                    on_frame(frame)
                    take_late()
                path.unlink()
                x += 1
            else:
                count = 1
                while count < 2 and x + count < total and sizes[x + count] <= 3000:
                    count += 1
                while not peer.free_slots:
                    on_frame(peer.next_frame())
                    if len(late) >= 3 or not peer.free_slots:
                        take_late()
                peer.send_rows(numbers(x, count))
                x += count
            if chance.random() < 0.05:
                peer.send(BarrierFrame(x))
        peer.send(EndFrame())
        while not isinstance(frame := peer.next_frame(), EndFrame):
            on_frame(frame)
            take_late()

    def numbers(start: int, count: int) -> pa.RecordBatch:
        xs = list(range(start, start + count))
        return pa.record_batch([xs, [bytes(sizes[x]) for x in xs]], schema=NUMBERS)

    with in_thread(play):
        while not isinstance(item := channel.receive(timeout_s=10), End):
            assert item is not None
            if isinstance(item, Batch):
                channel.send(item.columns)
            elif isinstance(item, Barrier):
                channel.acknowledge(item.checkpoint_id)
        channel.send_end()
    channel.close()
    peer.close()
    assert echoed == list(range(total))
    assert all(rows == checkpoint for checkpoint, rows in acknowledged)
