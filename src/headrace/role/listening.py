"""A port that peers can connect to before its address is told to them."""

from __future__ import annotations

import socket

__all__ = ["open_listener"]

_MORE_THAN_PEERS = 128


def open_listener(host: str, *, peers: int) -> socket.socket:
    """Return a socket that listens on a free port of `host`; the caller closes it.

    On all addresses of this machine where `host` is none of its own, since peers may reach it
    by an address that it does not have itself. Does not block.

    Args:
        host: Address of this host as the peers reach it.
        peers: How many may connect at one moment.

    Raises:
        OSError: The system has no port to give.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        try:
            listener.bind((host, 0))
        except OSError:
            listener.bind(("", 0))
        listener.listen(peers + _MORE_THAN_PEERS)
    except OSError:
        listener.close()
        raise
    return listener
