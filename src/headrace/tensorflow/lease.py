"""One client at a time connects to the parameter servers.

TensorFlow's server can crash when clients connect, or make variables, at the same instant. So a
client first takes the lease, from a thread of parameter server 0, and holds it while it
connects and while it makes variables. The lease *is* a connection: the next client gets it when
the holder closes its end, and so also when the holder dies. Clients are served in the order in
which they came.

Who waits, and what ends the wait: the server, for the holder: the end of its connection, or
`timeouts.process_start_timeout_s`; a holder that takes longer, or is frozen, has lost the
lease, and the next client connects beside it. A client, for its turn: so much for each client
there is, so that one who is slow to build its model costs no other its turn.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from headrace.errors import ServerLostError, WaitTimeoutError
from headrace.role import open_listener

__all__ = ["LeaseServer", "hold_lease"]

_LOG = logging.getLogger(__name__)
_WORD_BYTES = 32
_GRANTED = b"+"
_HELLO_TIMEOUT_S = 5.0
_SETTING = "timeouts.process_start_timeout_s"


class LeaseServer:
    """Grants the lease to one client after the other, on a thread of its own.

    The thread, "headrace-lease", owns the sockets; it ends at `close`, or with the process.

    Args:
        host: Address of this host as the clients reach it.
        hold_timeout_s: Longest time that one client may hold the lease, in seconds.
    """

    def __init__(self, host: str, *, hold_timeout_s: float) -> None:
        self._hold_timeout_s = hold_timeout_s
        self._word = secrets.token_hex(_WORD_BYTES // 2)
        self._listener = open_listener(host, peers=1024)
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
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # closed
            with client, contextlib.suppress(OSError):
                self._grant(client)

    def _grant(self, client: socket.socket) -> None:
        client.settimeout(_HELLO_TIMEOUT_S)
        said = client.recv(_WORD_BYTES, socket.MSG_WAITALL)
        if not hmac.compare_digest(said, self._word.encode()):
            return
        client.sendall(_GRANTED)
        client.settimeout(self._hold_timeout_s)
        try:
            client.recv(1)  # nothing comes but the end
        except TimeoutError:
            _LOG.warning(
                "A client has held the lease for %.1f s (`%s`); it goes to the next one.",
                self._hold_timeout_s,
                _SETTING,
            )


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
