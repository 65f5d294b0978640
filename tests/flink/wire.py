"""A TCP port that leads to another one of this host, until it is cut."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from tests.ports import free_ports

_LOCAL = "localhost"


class Wire:
    """What a client sees of a server when the network between them fails and comes back.

    Thread model: one thread; each connection has two threads of its own, until it is cut.

    Attributes:
        port: Where clients connect.
    """

    def __init__(self, behind: int) -> None:
        """Lead to the port `behind`."""
        (self.port,) = free_ports(1)
        self._behind = behind
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.mend()

    def __enter__(self) -> Wire:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cut()

    def mend(self) -> None:
        """Take connections, again."""
        listener = socket.create_server((_LOCAL, self.port))
        self._sockets = [listener]
        self._start(self._accept, listener)

    def cut(self) -> None:
        """Close every connection and refuse others. Idempotent."""
        while self._threads:
            for each in self._sockets:
                _end(each)
            self._threads.pop().join()
        for each in self._sockets:
            each.close()
        self._sockets = []

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                self._sockets.append(near)
                self._connect(near)

    def _connect(self, near: socket.socket) -> None:
        try:
            far = socket.create_connection((_LOCAL, self._behind))
        except OSError:
            _end(near)
            return
        self._sockets.append(far)
        self._start(_copy, near, far)
        self._start(_copy, far, near)

    def _start(self, work: Callable[..., None], *ends: socket.socket) -> None:
        thread = threading.Thread(target=work, args=ends)
        self._threads.append(thread)
        thread.start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    _end(source)
    _end(sink)


def _end(each: socket.socket) -> None:
    """Wake whoever waits for it, too."""
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
