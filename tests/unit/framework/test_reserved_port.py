"""A port that is kept for a server that does not run yet: real sockets."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from headrace.framework.node.port import ReservedPort

_IP_LOCAL_PORT_RANGE = 51  # Linux 6.3; Python has no name for it


@pytest.fixture
def port() -> Iterator[int]:
    reserved = ReservedPort()
    with contextlib.closing(reserved):
        yield reserved.number


def test_a_server_that_sets_reuseaddr_listens_on_it_again_and_again(port: int) -> None:
    for host in ("127.0.0.1", "", "127.0.0.1"):
        server = HTTPServer((host, port), BaseHTTPRequestHandler)
        with server, socket.create_connection(("127.0.0.1", port)) as client:
            accepted, _ = server.socket.accept()
            accepted.close()  # the server's side closes first: its end waits in TIME_WAIT
            assert client.recv(1) == b""


def test_a_server_on_every_address_of_both_families_listens_on_it(port: int) -> None:
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True):
        socket.create_connection(("127.0.0.1", port)).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_socket_without_reuseaddr_does_not_get_it(port: int, host: str) -> None:
    with socket.socket() as stranger, pytest.raises(OSError, match=str(errno.EADDRINUSE)):
        stranger.bind((host, port))


def test_nobody_gets_it_who_asks_for_any_port(port: int) -> None:
    with socket.socket() as stranger, socket.create_server(("127.0.0.1", 0)) as server:
        only_this = struct.pack("I", port << 16 | port)
        try:
            stranger.setsockopt(socket.IPPROTO_IP, _IP_LOCAL_PORT_RANGE, only_this)
        except OSError:
            pytest.skip("this kernel cannot narrow the range of free ports")
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match=str(errno.EADDRINUSE)):
            stranger.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match=str(errno.EADDRNOTAVAIL)):
            stranger.connect(server.getsockname())


def test_nobody_is_let_in_before_the_server_listens(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def test_two_nodes_never_have_the_same_port() -> None:
    several = [ReservedPort() for _ in range(50)]
    assert len({each.number for each in several}) == 50
    for each in several:
        each.close()
