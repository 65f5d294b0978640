"""A TCP port that belongs to one node for its whole life."""

from __future__ import annotations

import socket

__all__ = ["ReservedPort"]


class ReservedPort:
    """Keeps a free TCP port of this host for the algorithm processes of one node.

    A socket is bound to the port on every address and never listens. Both the socket and a
    server that sets SO_REUSEADDR may then have the port, and the server may listen on it (gRPC,
    and so TensorFlow, and Python's own HTTP servers set it), also when connections of a killed
    server still hang in TIME_WAIT. Nobody gets the port by chance: the kernel gives
    a port that is bound neither to `bind` with port 0 nor to `connect`, and refuses it to a
    socket without SO_REUSEADDR. It is bound on every address since a server may be:
    TensorFlow's binds [::] whatever host it is told.

    Thread model: any one thread. Children do not inherit the socket.

    Attributes:
        number: The port.

    Raises:
        OSError: No port is free.

    Source: Linux, net/ipv4/inet_connection_sock.c (`inet_csk_bind_conflict`) and
    net/ipv4/inet_hashtables.c (`__inet_hash_connect`).
    """

    def __init__(self) -> None:
        self._socket = _bind()
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Give the port back. Safe to repeat."""
        self._socket.close()


def _bind() -> socket.socket:
    try:
        return _bind_to(socket.AF_INET6, "::")
    except OSError:  # a host without IPv6
        return _bind_to(socket.AF_INET, "0.0.0.0")  # noqa: S104 - it never listens


def _bind_to(family: socket.AddressFamily, host: str) -> socket.socket:
    it = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET6:
            it.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        it.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        it.bind((host, 0))
    except BaseException:
        it.close()
        raise
    return it
