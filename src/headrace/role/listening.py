"""A port that peers can connect to before its address is told to them."""

from __future__ import annotations

import errno
import socket

from headrace.errors import ConfigError

__all__ = ["open_listener"]

_MORE_THAN_PEERS = 128


def open_listener(host: str, *, peers: int) -> socket.socket:
    """Return a socket that listens on a free port of `host`; the caller closes it.

    On that address and no other: what listens may ask for no password. Does not block, unless
    `host` is a name that the system has to look for.

    Args:
        host: Address of this host as the peers reach it.
        peers: How many may connect at one moment.

    Raises:
        ConfigError: The host has no address here.
        OSError: The system has no port to give.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
    except socket.gaierror as error:
        raise _not_here(host, error) from error
    try:
        listener.bind(address)
        listener.listen(peers + _MORE_THAN_PEERS)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRNOTAVAIL:
            raise _not_here(host, error) from error
        raise
    return listener


def _not_here(host: str, error: OSError) -> ConfigError:
    msg = (
        f"A process cannot listen on {host!r}: {error}. The host is what Flink calls this "
        "TaskManager (`taskmanager.host`); it must be an address of this machine."
    )
    return ConfigError(msg)
