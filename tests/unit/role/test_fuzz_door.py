"""Nonsense for a group's door and for the lease: nobody comes in who does not know the word."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.role import open_listener
from headrace.role.door import Door
from headrace.role.star import Star, open_star
from headrace.tensorflow.lease import LeaseServer, hold_lease
from tests.fuzzing import Usage, fuzz, pieces_of, talk, with_patience

from .test_star import Meeting, spec

pytestmark = with_patience(20)

WORD = b"0123456789abcdef0123456789abcdef"
_PLACE_S = 5.0


@fuzz(150)
@given(st.lists(st.one_of(st.binary(max_size=80), pieces_of(WORD + bytes(8))), max_size=6))
def test_the_door_opens_for_the_word_alone(said: list[bytes]) -> None:
    with open_listener("127.0.0.1", peers=8) as listener:
        door = Door(listener, WORD, extra_bytes=8, peers=8)
        ends = []
        try:
            for each in [*said, WORD + b"the last"]:
                end = socket.create_connection(listener.getsockname(), timeout=_PLACE_S)
                ends.append(end)
                end.sendall(each)
            admitted: list[bytes] = []
            while b"the last" not in admitted:
                for end, rest in door.admit(_PLACE_S):
                    end.close()
                    admitted.append(rest)
            right = [each[32:40] for each in said if each[:32] == WORD and len(each) >= 40]
            assert sorted(admitted) == sorted([*right, b"the last"])
        finally:
            door.close()
            for end in ends:
                end.close()


@pytest.fixture(scope="module")
def lease() -> Iterator[LeaseServer]:
    server = LeaseServer("127.0.0.1", hold_timeout_s=30.0)
    yield server
    server.close()


def test_nobody_gets_the_lease_without_the_word(lease: LeaseServer) -> None:
    word, _, place = lease.address.partition("@")
    host, _, port = place.rpartition(":")
    wrong = (word[:-1] + ("0" if word[-1] != "0" else "1")).encode()
    before = Usage.of(os.getpid())

    @fuzz(60)
    @given(st.one_of(st.binary(max_size=200), pieces_of(wrong)))
    def ask(said: bytes) -> None:
        with socket.create_connection((host, int(port)), timeout=_PLACE_S) as end:
            end.sendall(said)
            end.settimeout(0.005)
            with suppress(TimeoutError, ConnectionError):
                assert end.recv(1) == b""

    with hold_lease(lease.address, timeout_s=_PLACE_S):
        ask()
    ask()
    with hold_lease(lease.address, timeout_s=_PLACE_S):
        pass
    before.require_same(os.getpid(), more_mib=24, more_files=2, more_threads=0)


def test_the_lease_keeps_nothing_of_what_strangers_send(lease: LeaseServer) -> None:
    host, _, port = lease.address.partition("@")[2].rpartition(":")
    said = bytes(1 << 16)

    def send_much(connections: int) -> None:
        for _ in range(connections):
            end = socket.create_connection((host, int(port)), timeout=_PLACE_S)
            with end, suppress(ConnectionError):  # it closes when it has read a little
                end.sendall(said)
                end.recv(1)

    send_much(20)
    before = Usage.of(os.getpid())
    send_much(1024)  # 64 MiB: four times what may be held more
    before.require_same(os.getpid(), more_mib=16, more_files=2, more_threads=0)
    with hold_lease(lease.address, timeout_s=_PLACE_S):
        pass


def test_a_group_meets_while_strangers_say_anything() -> None:
    meeting = Meeting()
    members: list[Star] = []
    leader = threading.Thread(target=lambda: members.append(open_star(spec(0, 2), meeting)))
    leader.start()
    try:
        _, _, address = meeting.lookup("star/test", _PLACE_S).partition("@")
        host, _, port = address.rpartition(":")

        @fuzz(40)
        @given(st.one_of(st.binary(max_size=200), pieces_of(WORD + bytes([1] + [0] * 7))))
        def intrude(said: bytes) -> None:
            talk(socket.create_connection((host, int(port)), timeout=_PLACE_S), said)

        intrude()
        assert members == []
        members.append(open_star(spec(1, 2), meeting))
    finally:
        leader.join(15.0)
    assert len(members) == 2
    for member in members:
        member.close()
