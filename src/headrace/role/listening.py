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
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)
        # Where a name has both, IPv4: gloo finds its interface by it.
        family, _, _, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
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
