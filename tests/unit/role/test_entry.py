"""From the socket to the entry function and back, with a peer that plays the JVM."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from headrace.errors import ExchangeError, PeerLostError
from headrace.exchange.frames import BarrierAckFrame, BarrierFrame, EndFrame, WatermarkFrame
from headrace.role import RoleContext, RoleEntry
from tests.unit.exchange.peer import Peer, in_thread
from tests.unit.role.doubles import FakeLink, spec_in

SCHEMA = pa.schema([("x", pa.int64())])
BEGUN: tuple[dict[str, float], int, int] = ({}, 0, 0)


def rows(start: int, count: int) -> pa.RecordBatch:
    return pa.record_batch([list(range(start, start + count))], schema=SCHEMA)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Peer]:
    peer = Peer(tmp_path, input_schema=SCHEMA, output_schema=SCHEMA)
    yield peer
    peer.close()


def run(
    peer: Peer, directory: Path, entry: Callable[[RoleContext], object], link: FakeLink
) -> None:
    spec = spec_in(directory, queue_socket=str(peer.socket_path))
    RoleEntry(entry)(spec, link)


def double(context: RoleContext) -> None:
    for batch in context.batches(rows=4):
        context.emit({"x": batch["x"] * 2}, timestamps_ms=context.timestamps_ms)
        context.report(rows=len(batch["x"]))


def test_rows_barriers_and_watermarks_go_through_in_order(peer: Peer, tmp_path: Path) -> None:
    link = FakeLink()
    seen: list[object] = []

    def play() -> None:
        peer.greet()
        peer.send_rows(rows(0, 6))
        peer.send(WatermarkFrame(100), BarrierFrame(1))
        peer.send_rows(rows(6, 2))
        peer.send(EndFrame())
        while (frame := peer.next_frame()) is not None:
            if isinstance(frame, WatermarkFrame | BarrierAckFrame | EndFrame):
                seen.append(frame)
            elif hasattr(frame, "message_bytes"):
                seen.append(peer.take_rows(frame).column(0).to_pylist())

    with in_thread(play):
        run(peer, tmp_path, double, link)
    assert seen == [
        [0, 2, 4, 6],
        [8, 10],
        WatermarkFrame(100),
        BarrierAckFrame(1),
        [12, 14],
        EndFrame(),
    ]
    assert link.reports[-1][1:] == (8, 8)


def test_an_entry_that_returns_early_ends_its_part_in_order(peer: Peer, tmp_path: Path) -> None:
    def first_only(context: RoleContext) -> None:
        next(context.batches(rows=1))

    def play() -> None:
        peer.greet()
        peer.send_rows(rows(0, 3))
        peer.send_rows(rows(3, 3))
        assert peer.next_frame() == EndFrame()
        assert peer.next_frame() is None

    with in_thread(play):
        run(peer, tmp_path, first_only, FakeLink())


def test_an_entry_that_raises_closes_without_an_end(peer: Peer, tmp_path: Path) -> None:
    def broken(context: RoleContext) -> None:
        context.report(loss=1.0)
        msg = "no such column"
        raise KeyError(msg)

    def play() -> None:
        peer.greet()
        assert peer.next_frame() is None

    link = FakeLink()
    with in_thread(play), pytest.raises(KeyError, match="no such column"):
        run(peer, tmp_path, broken, link)
    assert link.reports == [BEGUN, ({"loss": 1.0}, 0, 0)]


@pytest.mark.parametrize("code", [0, None])
def test_exiting_with_success_is_success(peer: Peer, tmp_path: Path, code: int | None) -> None:
    def leaves(context: RoleContext) -> None:
        sys.exit(code)

    def play() -> None:
        peer.greet()
        assert peer.next_frame() == EndFrame()

    with in_thread(play), pytest.raises(SystemExit):
        run(peer, tmp_path, leaves, FakeLink())


def test_exiting_with_a_code_is_failure(peer: Peer, tmp_path: Path) -> None:
    def leaves(context: RoleContext) -> None:
        sys.exit(3)

    def play() -> None:
        peer.greet()
        assert peer.next_frame() is None

    with in_thread(play), pytest.raises(SystemExit):
        run(peer, tmp_path, leaves, FakeLink())


def test_the_death_of_the_jvm_reaches_the_entry_function(peer: Peer, tmp_path: Path) -> None:
    def play() -> None:
        peer.greet()
        peer.send_rows(rows(0, 1))
        peer.hang_up()

    with in_thread(play), pytest.raises(PeerLostError):
        run(peer, tmp_path, double, FakeLink())


def test_a_role_without_queue_runs_without_one(tmp_path: Path) -> None:
    link = FakeLink()
    RoleEntry(lambda context: context.report(done=1))(spec_in(tmp_path), link)
    assert link.reports == [BEGUN, ({"done": 1.0}, 0, 0)]


def test_a_queue_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    spec = spec_in(tmp_path, queue_socket=str(tmp_path / "gone.sock"))
    with pytest.raises(ExchangeError, match=r"gone\.sock"):
        RoleEntry(double)(spec, FakeLink())


def test_a_subclass_chooses_its_context(tmp_path: Path) -> None:
    class OwnContext(RoleContext):
        pass

    class OwnEntry(RoleEntry):
        context_class = OwnContext

    seen: list[type] = []
    OwnEntry(lambda context: seen.append(type(context)))(spec_in(tmp_path), FakeLink())
    assert seen == [OwnContext]
