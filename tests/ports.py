"""Ports for servers that a test starts and that must be told their port."""

from __future__ import annotations

import itertools
import os
import socket

# Below those that Linux gives to outgoing connections (32768 and up, see
# `ip_local_port_range`), or one of these may have the port before its server is up.
_FIRST, _COUNT = 20_000, 12_000
_numbers = itertools.count(os.getpid() * 61)  # processes of tests begin at different ones


def free_ports(count: int) -> list[int]:
    """Return that many ports that nobody listens on now, none of them twice."""
    found: list[int] = []
    while len(found) < count:
        port = _FIRST + next(_numbers) % _COUNT
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind(("", port))
            except OSError:
                continue
        found.append(port)
    return found
