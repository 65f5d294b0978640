"""One client at a time connects to the parameter servers."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from time import monotonic

import pytest

from headrace.errors import ServerLostError, WaitTimeoutError
from headrace.tensorflow.lease import LeaseServer, hold_lease
from tests.waiting import always

_HOLDER = """
import sys
from headrace.tensorflow.lease import hold_lease
with hold_lease(sys.argv[1], timeout_s=30.0):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def server() -> Iterator[LeaseServer]:
    server = LeaseServer("127.0.0.1", hold_timeout_s=30.0)
    yield server
    server.close()


def test_only_one_of_many_clients_holds_the_lease_and_each_gets_it(server: LeaseServer) -> None:
    inside: list[int] = []
    most: list[int] = []
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait(10.0)
        for _ in range(10):
            with hold_lease(server.address, timeout_s=30.0):
                inside.append(number)
                most.append(len(inside))
                inside.remove(number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert most == [1] * 80


def test_a_client_that_is_killed_with_the_lease_frees_it_at_once(server: LeaseServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, server.address],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with ThreadPoolExecutor(1) as pool:
            next_one = pool.submit(_hold_once, server.address)
            always(lambda: not next_one.done(), "it is held", for_s=0.3)
            killed_at = monotonic()
            holder.kill()
            assert next_one.result(timeout=10.0) - killed_at < 2.0


def _hold_once(address: str) -> float:
    with hold_lease(address, timeout_s=30.0):
        return monotonic()


def test_a_client_that_is_frozen_with_the_lease_loses_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = LeaseServer("127.0.0.1", hold_timeout_s=0.5)
    try:
        with (
            caplog.at_level(logging.WARNING),
            hold_lease(server.address, timeout_s=5.0),
            hold_lease(server.address, timeout_s=5.0),
        ):
            pass
    finally:
        server.close()
    (record,) = caplog.records[:1]
    assert "timeouts.process_start_timeout_s" in record.getMessage()


def test_a_turn_that_does_not_come_is_told_with_its_setting(server: LeaseServer) -> None:
    with (
        hold_lease(server.address, timeout_s=5.0),
        pytest.raises(WaitTimeoutError, match="turn of this process") as caught,
        hold_lease(server.address, timeout_s=0.2),
    ):
        pass
    assert "timeouts.process_start_timeout_s" in str(caught.value)


def test_without_the_word_nothing_is_granted(server: LeaseServer) -> None:
    _, _, place = server.address.partition("@")
    host, _, port = place.rpartition(":")
    for said in (b"x" * 32, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(32)):
        with socket.create_connection((host, int(port)), timeout=5.0) as stranger:
            stranger.sendall(said)
            assert _answer(stranger) == b""
    with pytest.raises(ServerLostError), hold_lease(f"{'0' * 32}@{place}", timeout_s=5.0):
        pass
    _hold_once(server.address)


def test_strangers_keep_nobody_from_the_lease(server: LeaseServer) -> None:
    _, _, place = server.address.partition("@")
    host, _, port = place.rpartition(":")
    with ExitStack() as strangers:
        for said in (b"", b"x", b"GET / HTTP/1.1\r\n\r\n") * 20:
            end = strangers.enter_context(socket.create_connection((host, int(port)), 5.0))
            end.sendall(said)
        begin = monotonic()
        for _ in range(5):
            _hold_once(server.address)
        assert monotonic() - begin < 2.0


def _answer(client: socket.socket) -> bytes:
    try:
        return client.recv(1)
    except ConnectionResetError:
        return b""


def test_a_server_that_has_ended_is_told() -> None:
    server = LeaseServer("127.0.0.1", hold_timeout_s=5.0)
    server.close()
    with pytest.raises(ServerLostError), hold_lease(server.address, timeout_s=5.0):
        pass
