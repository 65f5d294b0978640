"""The channel against a peer that plays the JVM."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import (
    DataError,
    ExchangeError,
    PeerLostError,
    ProtocolError,
    RowTooLargeError,
    UsageError,
    WaitTimeoutError,
)
from headrace.exchange import Barrier, Batch, Channel, End, Watermark
from headrace.exchange.frames import (
    BarrierAckFrame,
    BarrierFrame,
    BatchFrame,
    CreditFrame,
    EndFrame,
    HelloFrame,
    OpenFrame,
    OversizeCreditFrame,
    OversizeFrame,
    WatermarkFrame,
    encode,
)
from tests.unit.exchange.peer import Peer, in_thread

SCHEMA = pa.schema([("x", pa.int64()), ("name", pa.utf8())])
MakePeer = Callable[..., tuple[Peer, Channel]]


def rows(start: int, count: int) -> pa.RecordBatch:
    xs = range(start, start + count)
    return pa.record_batch([list(xs), [f"n{x}" for x in xs]], schema=SCHEMA)


@pytest.fixture
def connect(tmp_path: Path) -> Iterator[MakePeer]:
    opened: list[Any] = []

    def make(**settings: Any) -> tuple[Peer, Channel]:
        settings = {"input_schema": SCHEMA, "output_schema": SCHEMA, **settings}
        peer = Peer(tmp_path, **settings)
        opened.append(peer)
        channel = peer.open_channel(attempt=3)
        opened.append(channel)
        return peer, channel

    yield make
    for each in reversed(opened):
        each.close()


def receive_batch(channel: Channel) -> Batch:
    item = channel.receive(timeout_s=10)
    assert isinstance(item, Batch), item
    return item


def test_the_greeting_tells_attempt_and_pid_and_both_schemas(connect: MakePeer) -> None:
    peer, channel = connect()
    assert peer.hello == HelloFrame(attempt=3, pid=os.getpid())
    assert channel.input_schema == SCHEMA
    assert channel.output_schema == SCHEMA


def test_items_come_in_stream_order_with_rows_and_timestamps(connect: MakePeer) -> None:
    peer, channel = connect()
    stamps = pa.array([5, None, 7], pa.int64())
    peer.send_rows(rows(0, 3), stamps)
    peer.send(WatermarkFrame(7))
    peer.send_rows(rows(3, 2))
    peer.send(BarrierFrame(41), EndFrame())

    first = receive_batch(channel)
    assert first.columns.equals(rows(0, 3))
    assert first.timestamps_ms is not None
    assert first.timestamps_ms.equals(stamps)
    assert channel.receive(timeout_s=10) == Watermark(7)
    second = receive_batch(channel)
    assert second.columns.equals(rows(3, 2))
    assert second.timestamps_ms is None
    assert channel.receive(timeout_s=10) == Barrier(41)
    assert channel.receive(timeout_s=None) == End()


def test_receive_returns_none_when_nothing_comes_in_time(connect: MakePeer) -> None:
    _, channel = connect()
    assert channel.receive(timeout_s=0) is None
    assert channel.receive(timeout_s=0.02) is None


def test_after_the_end_a_barrier_still_comes_and_nothing_blocks(connect: MakePeer) -> None:
    peer, channel = connect()
    peer.send(EndFrame())
    assert channel.receive(timeout_s=None) == End()
    assert channel.receive(timeout_s=None) == End()
    peer.send(BarrierFrame(5))
    assert channel.receive(timeout_s=None) == Barrier(5)
    channel.acknowledge(5)
    assert peer.expect(BarrierAckFrame).checkpoint_id == 5


def test_credit_goes_back_only_when_nothing_refers_to_the_batch(connect: MakePeer) -> None:
    peer, channel = connect()
    slot = peer.send_rows(rows(0, 3))
    batch = receive_batch(channel)
    view = batch.columns.column(0).to_numpy()
    del batch
    assert channel.receive(timeout_s=0) is None
    assert not peer.has_frame()
    assert view.tolist() == [0, 1, 2]
    del view
    assert channel.receive(timeout_s=0) is None
    assert peer.expect(CreditFrame).slot == slot


def test_rows_are_written_so_that_the_peer_reads_them_back(connect: MakePeer) -> None:
    peer, channel = connect()
    stamps = pa.array([1, None, 3, 4], pa.int64())
    channel.send(rows(10, 4), stamps)
    channel.send_watermark(99)
    channel.send_end()
    got = peer.take_rows()
    assert got.column(0).to_pylist() == [10, 11, 12, 13]
    assert got.column(1).to_pylist() == ["n10", "n11", "n12", "n13"]
    assert got.column(2).equals(stamps)
    assert peer.expect(WatermarkFrame).timestamp_ms == 99
    assert peer.next_frame() == EndFrame()


def test_a_slice_travels_without_the_rows_around_it(connect: MakePeer) -> None:
    peer, channel = connect()
    channel.send(rows(0, 2000).slice(1500, 3))
    frame = peer.expect(BatchFrame)
    assert frame.message_bytes < 1000
    assert peer.take_rows(frame).column(1).to_pylist() == ["n1500", "n1501", "n1502"]


def test_a_batch_that_does_not_fit_a_slot_is_split_in_order(connect: MakePeer) -> None:
    peer, channel = connect(slots=2, slot_bytes=4096, batch_rows=100)
    got: list[int] = []

    def drain() -> None:
        while len(got) < 5000:
            got.extend(peer.take_rows().column(0).to_pylist())

    with in_thread(drain):
        channel.send(rows(0, 5000))
    assert got == list(range(5000))


def test_rows_of_very_uneven_size_are_split_until_they_fit(connect: MakePeer) -> None:
    peer, channel = connect(slot_bytes=8192, slots=8)
    sizes = [1, 7000, 1, 20_000, 1, 7000, 7000]
    batch = pa.record_batch(
        [list(range(len(sizes))), ["x" * size for size in sizes]], schema=SCHEMA
    )
    got: list[tuple[int, int]] = []

    def drain() -> None:
        while len(got) < len(sizes):
            part = peer.take_rows()
            got.extend(
                (x, len(name))
                for x, name in zip(
                    part.column(0).to_pylist(), part.column(1).to_pylist(), strict=True
                )
            )

    with in_thread(drain):
        channel.send(batch)
    assert got == list(enumerate(sizes))


def test_an_empty_batch_sends_nothing(connect: MakePeer) -> None:
    peer, channel = connect()
    channel.send(rows(0, 0))
    channel.send_end()
    assert peer.next_frame() == EndFrame()


@pytest.mark.parametrize(("limit_bytes", "slot_bytes"), [(100_000, 65_536), (2_000, 65_536)])
def test_rows_of_which_one_is_over_the_limit_are_refused_and_the_channel_goes_on(
    connect: MakePeer, limit_bytes: int, slot_bytes: int
) -> None:
    peer, channel = connect(max_row_bytes=limit_bytes, slot_bytes=slot_bytes)
    sizes = [limit_bytes // 2] * 3 + [limit_bytes] + [1] * 9
    huge = pa.record_batch([[*range(5, 18)], ["x" * size for size in sizes]], schema=SCHEMA)
    with pytest.raises(RowTooLargeError, match="max_row_bytes"):
        channel.send(huge)
    channel.send(rows(0, 1))
    assert peer.take_rows().column(0).to_pylist() == [0]


def test_an_oversized_row_comes_in_through_its_own_file(
    connect: MakePeer, tmp_path: Path
) -> None:
    peer, channel = connect()
    for number in range(3):
        wide = pa.record_batch([[number], [str(number) * 500_000]], schema=SCHEMA)
        path = tmp_path / "row"
        message = peer.message(wide)
        path.write_bytes(message)
        peer.send(OversizeFrame(len(message), str(path)))
        batch = receive_batch(channel)
        assert peer.next_frame() == OversizeCreditFrame()
        path.unlink()
        assert batch.columns.equals(wide)


def test_oversized_rows_go_out_one_after_the_other(connect: MakePeer) -> None:
    peer, channel = connect()
    wide = pa.record_batch([[1, 2], ["a" * 300_000, "b" * 300_000]], schema=SCHEMA)
    got: list[str] = []

    def drain() -> None:
        first = peer.expect(OversizeFrame)
        assert Path(first.path).stat().st_mode & 0o777 == 0o600
        got.extend(peer.take_rows(first).column(1).to_pylist())
        got.extend(peer.take_rows().column(1).to_pylist())

    with in_thread(drain):
        channel.send(wide)
    assert got == ["a" * 300_000, "b" * 300_000]


def test_a_send_without_room_takes_input_meanwhile(connect: MakePeer) -> None:
    peer, channel = connect(slots=2)
    sent: list[pa.RecordBatch] = []

    def play() -> None:
        frames = [peer.expect(BatchFrame), peer.expect(BatchFrame)]
        # Both directions are full now: the process may not stop reading.
        peer.send_rows(rows(0, 1))
        peer.send_rows(rows(1, 1))
        peer.send(*(WatermarkFrame(ms) for ms in range(20_000)))
        sent.extend(peer.take_rows(frame) for frame in frames)
        sent.append(peer.take_rows())

    with in_thread(play):
        for start in (100, 101, 102):
            channel.send(rows(start, 1))
    assert [batch.column(0).to_pylist() for batch in sent] == [[100], [101], [102]]
    assert receive_batch(channel).columns.equals(rows(0, 1))
    assert receive_batch(channel).columns.equals(rows(1, 1))
    assert channel.receive(timeout_s=10) == Watermark(19_999)


def test_the_death_of_the_peer_ends_a_wait_without_limit(connect: MakePeer) -> None:
    peer, channel = connect()
    with in_thread(peer.hang_up), pytest.raises(PeerLostError, match="TaskManager"):
        channel.receive(timeout_s=None)


def test_the_death_of_the_peer_ends_a_send_that_waits_for_room(connect: MakePeer) -> None:
    peer, channel = connect(slots=1)
    channel.send(rows(0, 1))
    with in_thread(peer.hang_up), pytest.raises(PeerLostError):
        channel.send(rows(1, 1))


def test_what_came_before_the_peer_died_is_still_delivered(connect: MakePeer) -> None:
    peer, channel = connect()
    peer.send_rows(rows(0, 1))
    peer.send_rows(rows(1, 1))
    peer.hang_up()
    assert receive_batch(channel).columns.equals(rows(0, 1))
    assert receive_batch(channel).columns.equals(rows(1, 1))
    with pytest.raises(PeerLostError):
        channel.receive(timeout_s=None)


@pytest.mark.parametrize(
    ("batch", "told"),
    [
        (pa.record_batch({"x": [1]}), "missing: name"),
        (pa.record_batch({"x": [1], "name": ["a"], "y": [1]}), "not in the output: y"),
        (pa.record_batch({"x": ["1"], "name": ["a"]}), "'x' holds string.*int64"),
        (pa.record_batch({"x": [1.5], "name": ["a"]}), "'x' .double.*int64.*1.5"),
    ],
)
def test_rows_that_do_not_fit_are_refused_by_name(
    connect: MakePeer, batch: pa.RecordBatch, told: str
) -> None:
    _, channel = connect()
    with pytest.raises(DataError, match=told):
        channel.send(batch)


def test_columns_are_found_by_name_and_cast_without_loss(connect: MakePeer) -> None:
    peer, channel = connect()
    channel.send(pa.record_batch({"name": ["a", "b"], "x": pa.array([1, 2], pa.int8())}))
    got = peer.take_rows()
    assert got.schema == peer.schemas["output"]
    assert got.column(0).to_pylist() == [1, 2]


def test_timestamps_of_the_wrong_kind_or_number_are_refused(connect: MakePeer) -> None:
    _, channel = connect()
    with pytest.raises(DataError, match="2 rows need as many int64"):
        channel.send(rows(0, 2), pa.array([1], pa.int64()))
    with pytest.raises(DataError, match="int64"):
        channel.send(rows(0, 1), pa.array(["1"]))


def test_a_role_without_a_direction_says_so(connect: MakePeer) -> None:
    peer, channel = connect(input_schema=None)
    assert channel.input_schema is None
    with pytest.raises(UsageError, match="no input"):
        channel.receive(timeout_s=0)
    peer.send(BarrierFrame(9))  # such a role gets none

    def fill() -> None:
        for row in itertools.count():
            channel.send(rows(row, 1))

    with pytest.raises(ProtocolError, match="no place here"):
        fill()


def test_nothing_can_be_sent_after_the_end(connect: MakePeer) -> None:
    _, channel = connect()
    channel.send_end()
    channel.send_end()
    with pytest.raises(UsageError, match="after the end"):
        channel.send(rows(0, 1))


def test_a_closed_channel_says_so(connect: MakePeer) -> None:
    _, channel = connect()
    channel.close()
    channel.close()
    with pytest.raises(UsageError, match="closed"):
        channel.receive(timeout_s=0)
    assert channel.input_schema == SCHEMA


@pytest.mark.parametrize(
    "data",
    [
        encode(BatchFrame(99, 100, 1)),
        encode(BatchFrame(0, 65_537, 1)),
        encode(BatchFrame(0, 64, 1)),
        encode(CreditFrame(0)),
        encode(HelloFrame(1, 1)),
        b"\xff" * 16,
    ],
    ids=["slot", "length", "no message", "credit", "hello", "noise"],
)
def test_what_breaks_the_protocol_is_an_error(connect: MakePeer, data: bytes) -> None:
    peer, channel = connect()
    peer.connection.sendall(data)
    with pytest.raises(ProtocolError):
        channel.receive(timeout_s=10)


def test_a_message_whose_buffers_end_outside_it_is_refused(connect: MakePeer) -> None:
    peer, channel = connect()
    message = peer.message(rows(0, 1000))
    peer.segments["input"].put(0, message)
    peer.send(BatchFrame(0, len(message) - 4096, 1000))
    with pytest.raises(ProtocolError):
        channel.receive(timeout_s=10)


def test_a_peer_of_another_version_is_refused(tmp_path: Path) -> None:
    peer = Peer(tmp_path, input_schema=SCHEMA)

    def greet() -> None:
        peer.accept()
        peer.expect(HelloFrame)
        peer.send(OpenFrame(peer.offers["input"], None, version=2))

    try:
        with pytest.raises(ProtocolError, match="version=2"):
            peer.open_channel(greet=greet)
    finally:
        peer.close()


def test_a_peer_that_does_not_answer_ends_the_greeting_in_time(tmp_path: Path) -> None:
    peer = Peer(tmp_path, input_schema=SCHEMA)
    try:
        with pytest.raises(WaitTimeoutError, match=r"timeouts\.process_start_timeout_s"):
            Channel.connect(str(peer.socket_path), attempt=1, connect_timeout_s=0.05)
    finally:
        peer.close()


def test_nobody_at_the_socket_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(ExchangeError, match=r"none\.sock"):
        Channel.connect(str(tmp_path / "none.sock"), attempt=1, connect_timeout_s=1)


def test_a_forked_child_is_told_to_use_no_workers(connect: MakePeer) -> None:
    _, channel = connect()
    reads, writes = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            channel.receive(timeout_s=0)
        except UsageError as exc:
            os.write(writes, str(exc).encode())
        finally:
            os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        assert b"num_workers=0" in pipe.read()
    os.waitpid(child, 0)


def test_a_batch_that_a_forked_child_holds_is_never_overwritten(connect: MakePeer) -> None:
    peer, channel = connect(slots=4)
    slot = peer.send_rows(rows(0, 3))
    batch = receive_batch(channel)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    del batch
    assert channel.receive(timeout_s=0) is None
    assert not peer.has_frame(), f"slot {slot} was given back"


def test_a_value_of_every_kind_keeps_its_bits(connect: MakePeer) -> None:
    peer, channel = connect(output_schema=pa.schema([("v", pa.float64())]))
    values = np.array([np.nan, -0.0, 5e-324, np.inf, 1 / 3])
    channel.send(pa.record_batch({"v": values}))
    got = peer.take_rows().column(0).to_numpy(zero_copy_only=False)
    assert got.tobytes() == values.tobytes()


def test_without_room_in_shared_memory_an_oversized_row_lies_beside_the_socket(
    connect: MakePeer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    peer, channel = connect()
    write = os.write

    def write_if_room(fd: int, data: bytes) -> int:
        if Path(f"/proc/self/fd/{fd}").readlink().parent == Path("/dev/shm"):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data)

    monkeypatch.setattr("headrace.exchange.direction.os.write", write_if_room)
    channel.send(pa.record_batch([[1], ["x" * 100_000]], schema=SCHEMA))
    frame = peer.expect(OversizeFrame)
    assert Path(frame.path).readlink().parent == peer.socket_path.parent
    assert peer.take_rows(frame).column(1).to_pylist() == ["x" * 100_000]
    assert "no room" in caplog.text


def test_without_any_room_for_an_oversized_row_the_error_names_the_places(
    connect: MakePeer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _, channel = connect()
    before = _open_files()

    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("headrace.exchange.direction.os.write", write)
    with pytest.raises(
        ExchangeError, match=rf"no room for a row.*/dev/shm \(.*\), {tmp_path} \(.*\)"
    ):
        channel.send(pa.record_batch([[1], ["x" * 100_000]], schema=SCHEMA))
    assert not list(tmp_path.glob("headrace-*"))
    assert _open_files() == before


def test_the_file_of_an_oversized_row_has_no_name_and_is_closed_with_its_credit(
    connect: MakePeer, tmp_path: Path
) -> None:
    peer, channel = connect()
    before = _open_files()
    channel.send(pa.record_batch([[1], ["x" * 100_000]], schema=SCHEMA))
    frame = peer.expect(OversizeFrame)
    assert str(Path(frame.path).readlink()).endswith("(deleted)")
    assert _open_files() != before
    with in_thread(channel.send_end):  # waits for the credit
        assert not peer.has_frame()
        assert peer.take_rows(frame).num_rows == 1
    assert isinstance(peer.next_frame(), EndFrame)
    assert _open_files() == before


def _open_files() -> set[str]:
    links = set()
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            links.add(str(each.readlink()))
    return links


def test_two_threads_at_once_are_told(connect: MakePeer) -> None:
    _, channel = connect()
    with channel._use, pytest.raises(UsageError, match="two threads"):  # as a call in progress
        channel.receive(timeout_s=0)


def test_a_channel_cannot_be_pickled(connect: MakePeer) -> None:
    _, channel = connect()
    with pytest.raises(UsageError, match="num_workers=0"):
        pickle.dumps(channel)


def test_who_waits_at_a_barrier_takes_no_item_and_gives_slots_back(connect: MakePeer) -> None:
    peer, channel = connect()
    slot = peer.send_rows(rows(0, 3))
    receive_batch(channel)
    channel.watch(timeout_s=0)
    assert peer.expect(CreditFrame).slot == slot
    peer.send_rows(rows(3, 2))
    peer.send(BarrierFrame(41))
    channel.watch(timeout_s=10)  # until something has come
    assert not channel.is_aborted(41)
    assert receive_batch(channel).columns.equals(rows(3, 2))
    assert channel.receive(timeout_s=10) == Barrier(41)


def test_the_death_of_the_peer_ends_the_wait_at_a_barrier(connect: MakePeer) -> None:
    peer, channel = connect()
    peer.close()
    with pytest.raises(PeerLostError):
        channel.watch(timeout_s=60)


def test_credit_does_not_wait_until_everything_that_has_come_was_taken(
    connect: MakePeer,
) -> None:
    peer, channel = connect()
    slots = [peer.send_rows(rows(start, 1)) for start in range(3)]
    receive_batch(channel)  # all three frames have been read off the socket now
    receive_batch(channel)
    assert peer.expect(CreditFrame).slot == slots[0]


def test_who_only_looks_ahead_does_not_tell_that_it_waits(connect: MakePeer) -> None:
    peer, channel = connect()
    peer.send_rows(rows(0, 3))
    receive_batch(channel)
    assert channel.receive(timeout_s=0, says_idle=False) is None
    while peer.has_frame():
        peer.expect(CreditFrame)
    assert peer.idle == []
    assert channel.receive(timeout_s=0) is None
    peer.has_frame()
    assert peer.idle == [1]
