"""How a process gets through to the memory queue's socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from headrace.errors import ExchangeError
from headrace.exchange.connection import FrameConnection


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
