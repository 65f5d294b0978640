"""Members of a group that know its word, and then say anything: an error, or what is right."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.config import TimeoutConfig
from headrace.errors import CollectiveError, ConfigError, ProtocolError
from headrace.exchange import MemoryFeed
from headrace.role import at_rest, star
from headrace.role.at_rest import AtRest, Keeper, Other
from headrace.role.barriers import Barriers
from headrace.role.star import Star
from tests.fuzzing import fuzz, pieces_of, with_patience

from .test_star import spec

pytestmark = with_patience(20)

_PAIR = struct.Struct("<QQ")
_VECTOR = np.array([1.0, 2.0, 4.0])
_RIGHT = _PAIR.pack(1, _VECTOR.nbytes) + _VECTOR.tobytes()
_LIMIT_S = 0.02
_NUMBER = st.one_of(st.integers(0, 4), st.integers(0, (1 << 64) - 1))
_SUMS = st.one_of(
    st.just(_RIGHT),
    pieces_of(_RIGHT),
    st.binary(max_size=100),
    st.builds(lambda number, size: _PAIR.pack(number, size) + bytes(60), _NUMBER, _NUMBER),
)
_REACHED, _OVER, _ANSWER, _DROP = 1, 2, 3, 4
_HELD = 7
_IDS = st.one_of(st.sampled_from([6, 7, 7, 7, 8]), st.integers(0, (1 << 64) - 1))
_MESSAGES = st.lists(
    st.builds(_PAIR.pack, st.one_of(st.integers(1, 4), st.integers(0, 255)), _IDS), max_size=6
).map(b"".join)
_SAID = st.one_of(
    _MESSAGES,
    st.just(_PAIR.pack(_REACHED, _HELD)),
    pieces_of(_PAIR.pack(_REACHED, _HELD) + _PAIR.pack(_OVER, 0) + _PAIR.pack(_ANSWER, _HELD)),
    st.binary(max_size=60),
)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    for each in (star, at_rest):
        monkeypatch.setattr(each, "let_the_cause_go_first", lambda: None)


@contextmanager
def peers_that_say(*said: bytes, are_gone: bool) -> Iterator[list[socket.socket]]:
    """Connections to peers that have said this, and perhaps are gone since."""
    with ExitStack() as stack:
        ours = []
        for each in said:
            end, other = socket.socketpair()
            ours.append(end)
            stack.callback(end.close)
            stack.callback(other.close)
            end.settimeout(5.0)
            other.sendall(each)
            if are_gone:
                other.close()
        yield ours


def test_a_sum_is_right_or_an_error_whatever_the_others_say() -> None:
    outcomes: Counter[str] = Counter()

    @fuzz(150)
    @given(st.lists(_SUMS, min_size=2, max_size=2), st.booleans(), st.booleans())
    def add(said: list[bytes], are_gone: bool, is_root: bool) -> None:
        said = said if is_root else said[:1]
        place = spec(0 if is_root else 1, 3, collective_timeout_s=_LIMIT_S)
        vector = _VECTOR.copy()
        with peers_that_say(*said, are_gone=are_gone) as peers:
            try:
                Star(place, peers).add(vector)
            except (CollectiveError, ConfigError) as error:
                outcomes[type(error).__name__] += 1
                return
        outcomes["added"] += 1
        bodies = [np.frombuffer(each[_PAIR.size :][: vector.nbytes]) for each in said]
        assert [each[: _PAIR.size] for each in said] == [_RIGHT[: _PAIR.size]] * len(said)
        expected = _VECTOR + bodies[0] + bodies[1] if is_root else bodies[0]
        assert vector.tobytes() == np.asarray(expected).tobytes()

    with np.errstate(all="ignore"):
        add()
    assert min(outcomes[each] for each in ("added", "CollectiveError", "ConfigError")) >= 3, (
        outcomes
    )


def _attend(worker: AtRest, barriers: Barriers) -> str:
    try:
        for _ in range(3):
            worker.attend(barriers, 0.0)
    except (ProtocolError, CollectiveError) as error:
        return type(error).__name__
    return "attended"


def _has_said(said: bytes, *kinds: int) -> bool:
    """Whether there is such a message in it, with the barrier that is held or with none."""
    whole = said[: len(said) - len(said) % _PAIR.size]
    return any(
        kind in kinds and (number == _HELD or kind == _OVER)
        for kind, number in _PAIR.iter_unpack(whole)
    )


def test_a_barrier_is_answered_for_no_other_reason_than_that_all_are_at_rest() -> None:
    outcomes: Counter[str] = Counter()

    @fuzz(300)
    @given(st.lists(_SAID, min_size=2, max_size=2), st.booleans(), st.booleans())
    def attend(said: list[bytes], are_gone: bool, is_keeper: bool) -> None:
        said = said if is_keeper else said[:1]
        feed = MemoryFeed([], input_schema=pa.schema([("x", pa.int64())]))
        barriers = Barriers(feed)
        barriers.begin_common(-1)
        assert not barriers.reach(_HELD)
        rests: list[None] = []
        kind = Keeper if is_keeper else Other
        with peers_that_say(*said, are_gone=are_gone) as peers:
            worker = kind(
                spec(0 if is_keeper else 1, 3),
                peers,
                lambda: rests.append(None),
                TimeoutConfig(),
            )
            outcome = _attend(worker, barriers)
            with suppress(OSError):
                worker.close()
        answered = [checkpoint for checkpoint, _ in feed.acknowledged]
        assert answered in ([], [_HELD])
        if answered:
            kinds = (_REACHED, _OVER) if is_keeper else (_ANSWER,)
            assert all(_has_said(each, *kinds) for each in said)
            assert rests, "answered before what it had changed was in place"
            outcome = "answered"
        outcomes[outcome] += 1

    attend()
    expected = ("answered", "attended", "ProtocolError", "CollectiveError")
    assert min(outcomes[each] for each in expected) >= 5, outcomes
