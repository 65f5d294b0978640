"""States on their way over the channel: offered, credited, aborted, and the last one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.errors import PeerLostError, ProtocolError
from headrace.exchange import Barrier, Channel, StateFile
from headrace.exchange.frames import (
    AbortFrame,
    BarrierAckFrame,
    BarrierFrame,
    CompleteFrame,
    EndFrame,
    StateCreditFrame,
)
from tests.unit.exchange.peer import Peer, in_thread

SCHEMA = pa.schema([("x", pa.int64())])


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[tuple[Peer, Channel]]:
    peer = Peer(tmp_path, input_schema=SCHEMA, output_schema=SCHEMA)
    channel = peer.open_channel()
    yield peer, channel
    channel.close()
    peer.close()


def filled(channel: Channel, content: bytes) -> StateFile:
    file = channel.take_state(len(content))
    with file.memory as memory:
        memory[:] = content
    return file


def test_an_acknowledgement_offers_the_state(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    channel.acknowledge(5, filled(channel, b"weights"))
    frame = peer.expect(BarrierAckFrame)
    assert frame.checkpoint_id == 5
    assert frame.state is not None
    assert Path(frame.state.path).read_bytes()[: frame.state.size_bytes] == b"weights"


def test_a_file_is_not_written_over_before_its_credit(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    first = filled(channel, b"1")
    channel.acknowledge(1, first)
    second = filled(channel, b"2")
    channel.acknowledge(2, second)
    assert len({first.number, second.number}) == 2
    offer = peer.expect(BarrierAckFrame).state
    assert offer is not None
    assert Path(offer.path).read_bytes()[:1] == b"1"
    peer.send(StateCreditFrame(offer.number))
    assert channel.take_state(1).number == first.number


def test_a_state_that_was_expected_goes_into_the_file_made_ahead(
    queue: tuple[Peer, Channel],
) -> None:
    peer, channel = queue
    channel.expect_state(8 << 20)
    file = filled(channel, bytes(8 << 20))
    assert file.capacity_bytes > 8 << 20
    channel.acknowledge(1, file)
    offer = peer.expect(BarrierAckFrame).state
    assert offer is not None
    assert (offer.number, offer.size_bytes) == (1, 8 << 20)


def test_a_file_that_is_being_made_ends_with_the_channel(queue: tuple[Peer, Channel]) -> None:
    _, channel = queue
    channel.expect_state(256 << 20)
    channel.close()
    assert "headrace-state-file" not in {each.name for each in threading.enumerate()}


def test_a_credit_for_a_file_that_is_not_out_is_refused(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    peer.send(StateCreditFrame(1))
    with pytest.raises(ProtocolError, match="no place here"):
        channel.receive(timeout_s=10)


def test_an_abort_is_seen_although_its_barrier_was_not_taken(
    queue: tuple[Peer, Channel],
) -> None:
    peer, channel = queue
    peer.send(BarrierFrame(5))
    assert channel.receive(timeout_s=10) == Barrier(5)
    assert not channel.is_aborted(5)
    peer.send(BarrierFrame(6), AbortFrame(6))
    assert channel.is_aborted(6)
    assert channel.is_aborted(5)
    assert not channel.is_aborted(7)
    assert channel.receive(timeout_s=10) == Barrier(6)


def test_a_file_that_is_read_is_written_over_only_when_both_have_let_go(
    queue: tuple[Peer, Channel],
) -> None:
    peer, channel = queue
    first, second = (filled(channel, name) for name in (b"1", b"2"))
    for number, file in enumerate((first, second), 1):
        file.is_read = True
        channel.acknowledge(number, file)
        assert peer.expect(BarrierAckFrame).checkpoint_id == number
    peer.send(StateCreditFrame(first.number))
    channel.let_go(second)
    third = channel.take_state(1)
    assert third.number not in (first.number, second.number)
    with first.memory as memory:
        assert bytes(memory) == b"1"
    channel.let_go(first)
    assert channel.take_state(1) is first
    peer.send(StateCreditFrame(second.number))
    assert channel.take_state(1) is second


def test_a_completed_checkpoint_is_told_from_within_any_call(
    queue: tuple[Peer, Channel],
) -> None:
    peer, channel = queue
    told: list[int] = []
    peer.send(CompleteFrame(4))  # nobody listens yet
    channel.watch(timeout_s=10)
    channel.on_complete(told.append)
    peer.send(BarrierFrame(5), CompleteFrame(5))
    assert channel.receive(timeout_s=10) == Barrier(5)
    channel.watch(timeout_s=0)
    assert told == [5]


def test_the_end_waits_until_the_last_state_is_open(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    seen: list[bytes] = []

    def operator() -> None:
        offer = peer.expect(BarrierAckFrame)
        assert offer.checkpoint_id == 2**63 - 1
        assert offer.state is not None
        peer.expect(EndFrame)
        with Path(offer.state.path).open("rb") as file:
            peer.send(StateCreditFrame(offer.state.number))
            assert peer.next_frame() is None  # the process has closed the connection
            seen.append(file.read(4))

    with in_thread(operator):
        channel.send_end(filled(channel, b"last"))
        channel.close()
    assert seen == [b"last"]


def test_an_operator_that_is_gone_does_not_hold_the_end(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue

    def operator() -> None:
        peer.expect(BarrierAckFrame)
        peer.expect(EndFrame)
        peer.hang_up()

    with in_thread(operator):
        channel.send_end(filled(channel, b"last"))


def test_a_state_for_an_operator_that_is_gone_is_an_error(queue: tuple[Peer, Channel]) -> None:
    peer, channel = queue
    peer.hang_up()
    with pytest.raises(PeerLostError):
        channel.take_state(1)
