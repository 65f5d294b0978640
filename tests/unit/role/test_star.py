"""Vectors of several members are added up through the first of them."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from time import monotonic
from typing import Any

import numpy as np
import pytest

from headrace.errors import CollectiveError, ConfigError, WaitTimeoutError
from headrace.role import star
from headrace.role.star import Star, StarSpec, open_star

Row = np.ndarray[Any, Any]


class Meeting:
    """The link of all members of a group."""

    def __init__(self) -> None:
        self._values: dict[str, Future[str]] = {}
        self._lock = threading.Lock()

    def publish(self, key: str, value: str) -> None:
        self._future(key).set_result(value)

    def lookup(self, key: str, timeout_s: float) -> str:
        return self._future(key).result(timeout_s)

    def _future(self, key: str) -> Future[str]:
        with self._lock:
            return self._values.setdefault(key, Future())

    def report(self, values: Any, rows_in: int, rows_out: int) -> None:
        raise NotImplementedError

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        raise NotImplementedError


def spec(rank: int, size: int, **changes: Any) -> StarSpec:
    facts: dict[str, Any] = {
        "name": "test",
        "rank": rank,
        "world_size": size,
        "host": "127.0.0.1",
        "gather_timeout_s": 10.0,
        "collective_timeout_s": 10.0,
    }
    return StarSpec(**{**facts, **changes})


@contextmanager
def group(size: int, **changes: Any) -> Iterator[list[Star]]:
    """Members that have met."""
    meeting = Meeting()
    members = together(
        [partial(open_star, spec(rank, size, **changes), meeting) for rank in range(size)]
    )
    try:
        yield members
    finally:
        for member in members:
            member.close()


def together(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make the calls at the same time; return what they returned or raised."""
    with ThreadPoolExecutor(len(calls)) as pool:
        made = [pool.submit(call) for call in calls]
        return [each.exception() or each.result() for each in made]


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(star, "let_the_cause_go_first", lambda: None)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("elements", [0, 1, 5, 1 << 21])
def test_all_get_the_same_sum(size: int, elements: int) -> None:
    vectors = [
        np.random.default_rng(rank).normal(size=elements).astype(np.float32)
        for rank in range(size)
    ]
    expected = vectors[0].copy()
    for vector in vectors[1:]:
        expected += vector
    with group(size) as members:
        assert (
            together([partial(m.add, v) for m, v in zip(members, vectors, strict=True)])
            == [None] * size
        )
    for vector in vectors:
        assert np.array_equal(vector, expected)


def test_sums_of_different_sizes_and_types_follow_each_other() -> None:
    def add_some(member: Star) -> list[list[float]]:
        found = []
        for vector in (np.ones(3), np.full(2, 2, np.float32), np.ones(3), np.arange(4.0)):
            member.add(vector)
            found.append(vector.tolist())
        return found

    with group(3) as members:
        results = together([partial(add_some, m) for m in members])
    assert results == [[[3] * 3, [6] * 2, [3] * 3, [0, 3, 6, 9]]] * 3


def test_the_vector_of_rank_0_is_spread() -> None:
    vectors = [np.full(5, float(rank + 1)) for rank in range(3)]
    with group(3) as members:
        together([partial(m.spread, v) for m, v in zip(members, vectors, strict=True)])
    assert [vector.tolist() for vector in vectors] == [[1.0] * 5] * 3


@pytest.mark.parametrize("dead", [0, 1, 2])
def test_the_end_of_any_member_ends_the_sum_of_the_others_at_once(dead: int) -> None:
    with group(3) as members:
        begin = monotonic()
        calls = [
            members[dead].close if rank == dead else partial(m.add, np.ones(4))
            for rank, m in enumerate(members)
        ]
        results = together(calls)
        assert monotonic() - begin < 5.0
    for rank, result in enumerate(results):
        if rank != dead:
            assert isinstance(result, CollectiveError)
            assert result.is_consequence
            assert "group 'test'" in str(result)


def test_a_member_that_ends_after_it_has_given_is_seen_while_another_is_late() -> None:
    with group(3) as members:
        peer = members[1]._peers[0]
        peer.sendall(star._HEADER.pack(1, 32) + bytes(32))
        members[1].close()
        (result,) = together([lambda: members[0].add(np.ones(4))])
    assert isinstance(result, CollectiveError)
    assert result.is_consequence


@pytest.mark.parametrize("silent", [0, 1])
def test_a_silent_member_ends_the_sum_at_the_limit_with_the_name_of_the_setting(
    silent: int,
) -> None:
    with group(2, collective_timeout_s=0.4) as members:
        begin = monotonic()
        (result,) = together([lambda: members[1 - silent].add(np.ones(4))])
        assert 0.3 < monotonic() - begin < 5.0
    assert isinstance(result, CollectiveError)
    assert not result.is_consequence
    assert "timeouts.collective_timeout_s" in str(result)


@pytest.mark.parametrize("is_asked", [False, True])
def test_a_member_that_sends_a_little_again_and_again_ends_the_sum_all_the_same(
    is_asked: bool,
) -> None:
    is_over = threading.Event()

    def require_no_stop() -> None:
        if is_asked:
            raise InterruptedWaitError

    with group(2, collective_timeout_s=0.4) as members:
        members[0]._spec = replace(members[0]._spec, check=require_no_stop)
        peer = members[1]._peers[0]
        peer.sendall(star._HEADER.pack(1, 1 << 20))

        def drip() -> None:
            while not is_over.wait(0.001):
                peer.sendall(b"x")

        def add() -> None:
            try:
                members[0].add(np.ones(1 << 17))
            finally:
                is_over.set()

        begin = monotonic()
        _, result = together([drip, add])
        assert monotonic() - begin < 5.0
    assert isinstance(result, InterruptedWaitError if is_asked else CollectiveError)


def test_a_member_that_takes_nothing_ends_the_sum_at_the_limit() -> None:
    vector = np.zeros(1 << 24)  # more than the sockets hold
    with group(2, collective_timeout_s=1.0) as members:
        (result,) = together([lambda: members[1].add(vector)])
    assert isinstance(result, CollectiveError)
    assert "timeouts.collective_timeout_s" in str(result)


class InterruptedWaitError(Exception):
    pass


def test_a_wait_ends_by_what_the_check_raises() -> None:
    is_asked = threading.Event()

    def require_no_stop() -> None:
        if is_asked.is_set():
            raise InterruptedWaitError

    with group(2, check=require_no_stop, collective_timeout_s=60.0) as members:
        is_asked.set()
        (result,) = together([lambda: members[0].add(np.ones(4))])
    assert isinstance(result, InterruptedWaitError)


@pytest.mark.parametrize("sizes", [(3, 4), (4, 3)])
@pytest.mark.parametrize("operation", ["add", "spread"])
def test_members_with_different_vectors_are_told_that_their_models_differ(
    sizes: tuple[int, int], operation: str
) -> None:
    with group(2) as members:

        def exchange(member: Star, elements: int) -> None:
            try:
                getattr(member, operation)(np.ones(elements))
                member.add(np.ones(elements))
            finally:
                member.close()

        results = together(
            [partial(exchange, m, n) for m, n in zip(members, sizes, strict=True)]
        )
    causes = [each for each in results if isinstance(each, ConfigError)]
    assert causes
    assert "models or loops of the group 'test' differ" in str(causes[0])
    for each in results:
        assert isinstance(each, ConfigError) or each.is_consequence


def test_a_group_that_does_not_meet_says_how_many_came() -> None:
    with pytest.raises(WaitTimeoutError, match=r"3 processes of the group 'test'.*1 came") as e:
        open_star(spec(0, 3, gather_timeout_s=0.3, met_by="ctx.add_up"), Meeting())
    assert "Has one of them ended, or not called ctx.add_up?" in str(e.value)


def test_a_first_member_that_has_ended_is_told_with_the_limit_of_the_connection() -> None:
    meeting = Meeting()
    with socket.create_server(("127.0.0.1", 0)) as server:
        meeting.publish("star/test", f"{'0' * 32}@127.0.0.1:{server.getsockname()[1]}")
    told = (
        r"^The start of the group 'test' failed after 0\.\d s \(limit 10\.0 s\)\. A peer has "
        r"ended; its own error is the cause.* Connection refused$"
    )
    with pytest.raises(CollectiveError, match=told):
        open_star(spec(1, 2, collective_timeout_s=600.0), meeting)


def test_silent_strangers_do_not_keep_the_group_from_meeting() -> None:
    meeting = Meeting()

    def join() -> Star:
        _, _, address = meeting.lookup("star/test", 5.0).partition("@")
        host, _, port = address.rpartition(":")
        with ExitStack() as strangers:
            for said in (b"", b"x" * 39) * 20:
                end = strangers.enter_context(socket.create_connection((host, int(port)), 5.0))
                end.sendall(said)
            begin = monotonic()
            member = open_star(spec(1, 2), meeting)
            member.spread(np.ones(1))
            assert monotonic() - begin < 2.0
            return member

    def lead() -> Star:
        member = open_star(spec(0, 2), meeting)
        member.spread(np.ones(1))
        return member

    members = together([lead, join])
    for member in members:
        assert isinstance(member, Star), member
        member.close()


def is_hung_up(connection: socket.socket, hello: bytes) -> bool:
    try:
        connection.sendall(hello)
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_stranger_is_no_member() -> None:
    meeting = Meeting()

    def intrude() -> None:
        _, _, address = meeting.lookup("star/test", 5.0).partition("@")
        host, _, port = address.rpartition(":")
        http = b"GET / HTTP/1.1\r\n\r\n" + bytes(64)
        for hello in (http, b"x" * 32 + bytes([1, 0, 0, 0, 0, 0, 0, 0])):
            with socket.create_connection((host, int(port)), timeout=5.0) as stranger:
                assert is_hung_up(stranger, hello)

    def join() -> Star:
        intrude()
        return open_star(spec(1, 2), meeting)

    first, second = together([lambda: open_star(spec(0, 2), meeting), join])
    assert isinstance(second, Star), second
    vectors = [np.ones(2), np.ones(2)]
    together([lambda: first.add(vectors[0]), lambda: second.add(vectors[1])])
    first.close()
    second.close()
    assert [vector.tolist() for vector in vectors] == [[2.0, 2.0]] * 2
