"""Who knows the word is let in; who does not is in nobody's way."""

from __future__ import annotations

import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from time import monotonic

import pytest

from headrace.role import open_listener
from headrace.role.door import Door, DoorClosedError

WORD = b"0123456789abcdef"


@contextmanager
def door(**settings: float) -> Iterator[tuple[Door, tuple[str, int]]]:
    """A door that wants four bytes after the word, and where it is."""
    with open_listener("127.0.0.1", peers=8) as listener:
        it = Door(listener, WORD, extra_bytes=4, **settings)  # type: ignore[arg-type]
        try:
            yield it, listener.getsockname()
        finally:
            it.close()


def connect(address: tuple[str, int], first: bytes = b"") -> socket.socket:
    end = socket.create_connection(address, timeout=5.0)
    end.sendall(first)
    return end


def admitted(it: Door, within_s: float = 5.0) -> list[bytes]:
    """Return what is said after the word, once somebody is let in; nothing if nobody is."""
    deadline = monotonic() + within_s
    while (left_s := deadline - monotonic()) > 0:
        if let_in := it.admit(left_s):
            for end, _ in let_in:
                end.close()
            return [said for _, said in let_in]
    return []


def is_closed(end: socket.socket) -> bool:
    try:
        return end.recv(1) == b""
    except ConnectionError:
        return True


def test_who_says_the_word_is_let_in_also_byte_by_byte() -> None:
    with door() as (it, address), connect(address) as end:
        for byte in WORD + b"rank":
            assert admitted(it, 0.01) == []
            end.sendall(bytes([byte]))
        assert admitted(it) == [b"rank"]


def test_what_comes_after_the_hello_is_left_for_who_takes_the_connection() -> None:
    with door() as (it, address), connect(address, WORD + b"rankmore"):
        let_in: list[tuple[socket.socket, bytes]] = []
        while not let_in:
            let_in = it.admit(5.0)
        ((end, said),) = let_in
        with end:
            assert (said, end.recv(10)) == (b"rank", b"more")


@pytest.mark.parametrize(
    "said",
    [WORD[:-1] + b"xrank", b"x" + WORD[1:] + b"rank", b"\0" * 20, WORD.upper() + b"rank"],
)
def test_another_word_is_closed(said: bytes) -> None:
    with door() as (it, address), connect(address, said + b"rank") as end:
        assert admitted(it, 0.2) == []
        assert is_closed(end)


def test_who_leaves_in_the_middle_of_the_word_is_not_let_in() -> None:
    with door() as (it, address):
        connect(address, WORD).close()
        connect(address, WORD[:3]).close()
        connect(address).close()
        assert admitted(it, 0.2) == []


def test_silent_guests_hold_nobody_up_and_are_closed_in_time() -> None:
    with door(guest_s=3.0) as (it, address), ExitStack() as stack:
        silent = [stack.enter_context(connect(address, WORD[:n])) for n in range(10)]
        begin = monotonic()
        with connect(address, WORD + b"rank"):
            assert admitted(it) == [b"rank"]
        assert monotonic() - begin < 2.5
        assert admitted(it, 4.0) == []
        assert all(is_closed(each) for each in silent)


def test_of_too_many_silent_guests_the_oldest_is_closed() -> None:
    with door(peers=2, guest_s=60.0) as (it, address), ExitStack() as stack:
        silent = []
        for _ in range(100):
            silent.append(stack.enter_context(connect(address)))
            it.admit(0.01)
        for each in silent:
            each.settimeout(0.01)
        assert [each for each in silent[:34] if not is_closed(each)] == []
        with pytest.raises(TimeoutError):
            silent[34].recv(1)
        with connect(address, WORD + b"rank"):
            assert admitted(it) == [b"rank"]


def test_without_descriptors_guests_give_theirs_up() -> None:
    with door(guest_s=60.0) as (it, address), ExitStack() as stack:
        ends = [stack.enter_context(connect(address)) for _ in range(20)]
        ends.append(stack.enter_context(connect(address, WORD + b"rank")))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        in_use = max(each.fileno() for each in ends)
        resource.setrlimit(resource.RLIMIT_NOFILE, (in_use + 4, hard))
        try:
            assert admitted(it) == [b"rank"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_wait_ends_when_the_listener_is_shut_down() -> None:
    with open_listener("127.0.0.1", peers=1) as listener:
        it = Door(listener, WORD)
        ender = threading.Timer(0.1, lambda: listener.shutdown(socket.SHUT_RDWR))
        ender.start()
        with pytest.raises(DoorClosedError):
            it.admit(None)
        ender.join()
