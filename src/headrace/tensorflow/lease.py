"""One client at a time connects to the parameter servers.

TensorFlow's server can crash when clients connect, or make variables, at the same instant. So a
client first takes the lease, from a thread of parameter server 0, and holds it while it
connects and while it makes variables. The lease *is* a connection: the next client gets it when
the holder closes its end, and so also when the holder dies. Clients are served in the order in
which they came.

Who waits, and what ends the wait: the server, for a client that has not said the word: some
seconds, while others are served (`headrace.role.door`); for the holder: the end of its
connection, or `timeouts.process_start_timeout_s`; a holder that takes longer, or is frozen, has
lost the lease, and the next client connects beside it. A client, for its turn: so much for each
client there is, so that one who is slow to build its model costs no other its turn.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

from headrace.errors import ServerLostError, WaitTimeoutError
from headrace.role import Door, DoorClosedError, open_listener

__all__ = ["LeaseServer", "hold_lease"]

_LOG = logging.getLogger(__name__)
_WORD_BYTES = 32
_GRANTED = b"+"
_CLIENTS = 1024
_JOIN_S = 5.0
_SETTING = "timeouts.process_start_timeout_s"


class LeaseServer:
    """Grants the lease to one client after the other, on a thread of its own.

    The thread, "headrace-lease", owns the sockets; it ends at `close`, or with the process. It
    serves strangers, who do not say the word, beside the clients: they hold up nobody.

    Args:
        host: Address of this host as the clients reach it.
        hold_timeout_s: Longest time that one client may hold the lease, in seconds.
    """

    def __init__(self, host: str, *, hold_timeout_s: float) -> None:
        self._hold_timeout_s = hold_timeout_s
        self._word = secrets.token_hex(_WORD_BYTES // 2)
        self._listener = open_listener(host, peers=_CLIENTS)
        self._place = f"{host}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, name="headrace-lease", daemon=True)
        self._thread.start()

    @property
    def address(self) -> str:
        """What a client needs to know: a random word that it must say, host and port."""
        return f"{self._word}@{self._place}"

    def close(self) -> None:
        """Grant no further lease. Idempotent."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closes it
        self._thread.join(_JOIN_S)

    def _serve(self) -> None:
        door = Door(self._listener, self._word.encode(), peers=_CLIENTS)
        line = _Line(self._hold_timeout_s)
        try:
            with self._listener:
                while True:
                    for client, _ in door.admit(line.wait_s(), line.holders()):
                        line.join(client)
                    line.go_on()
        except DoorClosedError:
            return
        finally:
            door.close()
            line.close()


class _Line:
    """The holder of the lease, and the clients behind it in the order in which they came."""

    def __init__(self, hold_timeout_s: float) -> None:
        self._hold_timeout_s = hold_timeout_s
        self._holder: socket.socket | None = None
        self._deadline = 0.0
        self._waiting: deque[socket.socket] = deque()

    def holders(self) -> tuple[socket.socket, ...]:
        """Whose end frees the lease."""
        return () if self._holder is None else (self._holder,)

    def wait_s(self) -> float | None:
        """How long the holder may still hold it."""
        return None if self._holder is None else max(0.0, self._deadline - monotonic())

    def join(self, client: socket.socket) -> None:
        """Stand in line."""
        client.setblocking(False)
        self._waiting.append(client)

    def go_on(self) -> None:
        """Take the lease from who has ended or is too late, and grant it to the next one."""
        if self._holder is not None and not self._has_it(self._holder):
            self._holder.close()
            self._holder = None
        while self._holder is None and self._waiting:
            client = self._waiting.popleft()
            if _grant(client):
                self._holder = client
                self._deadline = monotonic() + self._hold_timeout_s
            else:
                client.close()

    def close(self) -> None:
        """Close all connections."""
        for client in (*self.holders(), *self._waiting):
            client.close()

    def _has_it(self, holder: socket.socket) -> bool:
        try:
            holder.recv(1)  # nothing comes but the end
        except BlockingIOError:
            if monotonic() < self._deadline:
                return True
            _LOG.warning(
                "A client has held the lease for %.1f s (`%s`); it goes to the next one.",
                self._hold_timeout_s,
                _SETTING,
            )
        except OSError:
            pass  # it was killed
        return False


def _grant(client: socket.socket) -> bool:
    """Give a client the lease; False if it has left the line."""
    try:
        client.sendall(_GRANTED)
    except OSError:
        return False
    return True


@contextmanager
def hold_lease(address: str, *, timeout_s: float) -> Iterator[None]:
    """Hold the lease in the `with` block. Blocks until it is this client's turn.

    Args:
        address: `LeaseServer.address`.
        timeout_s: Longest wait for the turn, in seconds.

    Raises:
        WaitTimeoutError: The turn did not come in time.
        ServerLostError: Parameter server 0 has ended.
    """
    with _take_lease(address, timeout_s):
        yield


def _take_lease(address: str, timeout_s: float) -> socket.socket:
    word, _, place = address.partition("@")
    host, _, port = place.rpartition(":")
    server = None
    try:
        server = socket.create_connection((host, int(port)), timeout=timeout_s)
        server.sendall(word.encode())
        if server.recv(1) != _GRANTED:
            msg = "the connection was closed"
            raise ConnectionError(msg)
    except OSError as error:
        if server is not None:
            server.close()
        if not isinstance(error, TimeoutError):
            raise ServerLostError(reason=str(error)) from error
        raise WaitTimeoutError(
            waited_for="the turn of this process to connect to the parameter servers",
            waited_s=timeout_s,
            setting=_SETTING,
            hint=(
                "Another process connects very slowly, or is frozen while it does. The wait is "
                "the setting for each process that uses the servers."
            ),
        ) from error
    return server
