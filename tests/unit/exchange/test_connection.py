"""How a process gets through to the memory queue's socket, and sends each frame once."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from headrace.errors import ExchangeError
from headrace.exchange.connection import FrameConnection
from headrace.exchange.frames import EndFrame, FrameDecoder, WatermarkFrame
from headrace.framework.stopping import StopRequestedExit


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[socket.socket]:
    """A listener for whom so many wait that the kernel takes no more."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        listener.bind(str(tmp_path / "queue"))
        listener.listen(1)
        while True:
            other = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            other.setblocking(False)
            try:
                other.connect(listener.getsockname())
            except BlockingIOError:
                break
        yield listener


def test_a_process_waits_for_its_turn_at_a_crowded_socket(crowded: socket.socket) -> None:
    def accept_one() -> None:
        crowded.accept()[0].close()

    timer = threading.Timer(0.2, accept_one)
    timer.start()
    FrameConnection(crowded.getsockname(), connect_timeout_s=10.0).close()
    timer.join()


def test_a_process_gives_up_at_its_time_out(crowded: socket.socket) -> None:
    with pytest.raises(ExchangeError, match="cannot be reached"):
        FrameConnection(crowded.getsockname(), connect_timeout_s=0.1)


class ScriptedSocket:
    """Takes of each `send` what the script says: so many bytes, or what it raises.

    A stop comes as Python's signal handlers do: behind the system call, which has sent all.
    """

    def __init__(self, script: list[int | BaseException]) -> None:
        self._script = script
        self.sent = b""

    def send(self, data: bytearray) -> int:
        step = self._script.pop(0) if self._script else len(data)
        if isinstance(step, BlockingIOError):
            raise step
        taken = bytes(data) if isinstance(step, BaseException) else bytes(data[:step])
        self.sent += taken
        if isinstance(step, BaseException):
            raise step
        return len(taken)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[FrameConnection]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "queue"))
        listener.listen()
        opened = FrameConnection(listener.getsockname(), connect_timeout_s=10.0)
        opened._socket.close()
        yield opened


def test_what_a_stop_finds_sent_is_not_sent_again(connection: FrameConnection) -> None:
    double: Any = ScriptedSocket([StopRequestedExit()])
    connection._socket = double
    connection.queue(WatermarkFrame(1))
    with pytest.raises(StopRequestedExit):
        connection.try_flush()
    connection.queue(EndFrame())
    assert connection.try_flush()
    assert FrameDecoder().feed(double.sent) == [WatermarkFrame(1), EndFrame()]


def test_what_the_socket_does_not_take_is_sent_later(connection: FrameConnection) -> None:
    double: Any = ScriptedSocket([BlockingIOError(), 3, BlockingIOError(), 1])
    connection._socket = double
    connection.queue(WatermarkFrame(1))
    assert not connection.try_flush()
    connection.queue(WatermarkFrame(2))
    assert not connection.try_flush()
    assert connection.try_flush()
    assert FrameDecoder().feed(double.sent) == [WatermarkFrame(1), WatermarkFrame(2)]
