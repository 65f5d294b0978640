"""The parts of a node for themselves: lines of output, exits, the node's end of the link."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.framework.failure import Failure
from headrace.framework.jvm import JvmLink
from headrace.framework.link_lines import (
    FromProcess,
    ReportLine,
    ValueLine,
    encode_line,
)
from headrace.framework.machine import ProcessState
from headrace.framework.node.exits import outcome_of_exit
from headrace.framework.node.link_server import LinkServer
from headrace.framework.node.output import LineTail, OutputPump
from headrace.framework.node.work_dir import link_entries


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_every_byte_is_forwarded_however_it_is_cut(parts: list[bytes]) -> None:
    tail = LineTail()
    forwarded = b"".join([*(tail.feed(part) for part in parts), tail.finish()])
    written = b"".join(parts)
    assert forwarded == (written if not written or written.endswith(b"\n") else written + b"\n")


def test_a_line_without_an_end_is_broken_and_memory_stays_small() -> None:
    tail = LineTail(b"w: ")
    forwarded = b"".join(tail.feed(b"x" * 10_000) for _ in range(20)) + tail.finish()
    lines = forwarded.split(b"\n")
    assert [len(line) for line in lines] == [65_539, 65_539, 65_539, 3395, 0]
    assert forwarded.count(b"x") == 200_000


def test_the_last_fifty_lines_are_kept_also_without_a_newline() -> None:
    tail = LineTail()
    tail.feed("".join(f"line {i}\n" for i in range(100)).encode() + "ä".encode())
    assert tail.last_lines == (*(f"line {i}" for i in range(51, 100)), "ä")


def test_a_sink_that_blocks_holds_the_end_of_the_pump_for_its_timeout_only() -> None:
    read_end, write_end = os.pipe()
    gate_read, gate_write = os.pipe()

    def wait_for_the_gate(_: bytes) -> None:
        os.read(gate_read, 1)

    pump = OutputPump(read_end, wait_for_the_gate, name="test")
    os.write(write_end, b"hello\n")
    assert not pump.finish(0.05)
    os.close(gate_write)  # opens the gate: the pump's thread ends
    os.close(write_end)
    pump._thread.join(5)
    os.close(gate_read)
    assert pump.last_lines == ("hello",)


def test_the_pump_ends_although_a_stranger_keeps_the_pipe_open() -> None:
    read_end, write_end = os.pipe()
    written: list[bytes] = []
    pump = OutputPump(read_end, written.append, name="test")
    os.write(write_end, b"one\ntwo")
    assert pump.finish(5)
    assert b"".join(written) == b"one\ntwo\n"
    os.close(write_end)


def test_a_sink_that_raises_is_left_alone_and_the_process_writes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    read_end, write_end = os.pipe()
    written: list[bytes] = []

    def sink(lines: bytes) -> None:
        written.append(lines)
        msg = "I/O operation on closed file"
        raise ValueError(msg)

    pump = OutputPump(read_end, sink, name="test")
    for number in range(3):
        os.write(write_end, b"%d\n" % number)
        while len(pump.last_lines) <= number:
            os.sched_yield()
    assert pump.finish(5)
    os.close(write_end)
    assert written == [b"0\n"]
    assert pump.last_lines == ("0", "1", "2")
    (record,) = caplog.records
    assert "test: its lines go nowhere from now on: ValueError(" in record.getMessage()


def test_a_child_whose_jvm_sends_no_first_line_does_not_wait_for_ever(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def wait() -> object:
        transport: Any = None
        link = JvmLink(asyncio.StreamReader(), transport, transport)
        return await link.receive_first(0.05)

    assert asyncio.run(wait()) is None
    assert "the JVM has sent nothing for 0.1 s" in caplog.text


TOLD = Failure(kind="user_code", message="ValueError: boom", exit_code=1)


@pytest.mark.parametrize("return_code", [0, 1, -9])
def test_a_process_that_was_told_to_stop_is_stopped(return_code: int) -> None:
    outcome = outcome_of_exit(return_code, told=TOLD, last_lines=(), was_told_to_stop=True)
    assert outcome == (ProcessState.STOPPED, None)


def test_what_the_process_told_wins_over_how_it_ended() -> None:
    outcome, failure = outcome_of_exit(
        -11, told=TOLD, last_lines=("last",), was_told_to_stop=False
    )
    assert outcome is ProcessState.FAILED
    assert failure == Failure(
        kind="user_code", message="ValueError: boom", exit_code=1, last_lines=("last",)
    )


@pytest.mark.parametrize(
    ("return_code", "kind", "exit_code", "signal"),
    [
        (3, "user_code", 3, None),
        (-9, "process_lost", None, "SIGKILL"),
        (-11, "process_lost", None, "SIGSEGV"),
        (-63, "process_lost", None, "signal 63"),
    ],
)
def test_an_end_without_words_tells_code_or_signal(
    return_code: int, kind: str, exit_code: int | None, signal: str | None
) -> None:
    outcome, failure = outcome_of_exit(
        return_code, told=None, last_lines=(), was_told_to_stop=False
    )
    assert outcome is ProcessState.FAILED
    assert failure is not None
    assert (failure.kind, failure.exit_code, failure.signal) == (kind, exit_code, signal)
    assert failure.is_restartable


def test_garbage_on_the_link_is_skipped_and_the_rest_is_read() -> None:
    async def scenario() -> list[FromProcess]:
        ours, theirs = socket.socketpair()
        lines: list[FromProcess] = []
        server = LinkServer(ours, lines.append)
        good = encode_line(ReportLine(values={"a": 1.0}))
        theirs.sendall(b"garbage\n{}\n\xff\n" + good + b'{"type": "unknown"}\n' + good[:5])
        server.drain()
        theirs.sendall(good[5:])
        server.drain()
        server.send(ValueLine(id=1, value="v"))
        assert theirs.recv(100) == encode_line(ValueLine(id=1, value="v"))
        theirs.close()
        server.drain()
        server.send(ValueLine(id=2, value="v"))
        server.close()
        return lines

    assert asyncio.run(scenario()) == [ReportLine(values={"a": 1.0})] * 2


def test_an_endless_line_on_the_link_closes_it() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        server = LinkServer(ours, lambda _: None)
        theirs.setblocking(False)
        sent = 0
        while ours.fileno() >= 0 and sent < 100 * 1024 * 1024:
            with contextlib.suppress(BlockingIOError):
                sent += theirs.send(b"x" * 65_536)
            server.drain()
        assert sent < 10 * 1024 * 1024
        theirs.close()

    asyncio.run(scenario())


def test_archives_are_linked_and_hide_no_file_of_the_process(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archives, work_dir = tmp_path / "archives", tmp_path / "work"
    for name in ("data", "spec", "gone"):
        (archives / name).mkdir(parents=True)
    work_dir.mkdir()
    (work_dir / "spec").write_text("ours")
    (work_dir / "gone").symlink_to(tmp_path / "nowhere")
    link_entries(archives, work_dir)
    assert (work_dir / "data").readlink() == archives / "data"
    assert (work_dir / "spec").read_text() == "ours"
    assert (work_dir / "gone").readlink() == tmp_path / "nowhere"
    assert {record.args for record in caplog.records} == {("spec",), ("gone",)}
