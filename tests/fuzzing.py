"""Examples for tests that send nonsense: few and the same in each run, or many and new ones.

`make fuzz` takes the profile "long" of hypothesis: fifty times as many examples, at random.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from tests.waiting import until

__all__ = [
    "PREFACE",
    "Usage",
    "fuzz",
    "http2_connections",
    "http2_frame",
    "pieces_of",
    "talk",
    "with_patience",
]

FACTOR = max(1, settings().max_examples // 100)  # of the profile that is loaded
_SETTLE_S = 10.0
_ANSWER_S = 0.02
_MAGIC = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
PREFACE = _MAGIC + _SETTINGS
"""With what a client of HTTP/2 begins."""


def fuzz(examples: int) -> Callable[[Any], Any]:
    """Run a test on that many examples, or on many more in the long profile."""
    return settings(
        max_examples=examples * FACTOR,
        derandomize=FACTOR == 1,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def with_patience(seconds: float) -> pytest.MarkDecorator:
    """Mark for tests of such a file: the limit of each, which grows with the examples."""
    return pytest.mark.timeout(seconds * FACTOR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process holds.

    Attributes:
        rss_kib: Resident memory.
        files: Open descriptors.
        threads: Its threads.
    """

    rss_kib: int
    files: int
    threads: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Look at a process."""
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in status)
        return cls(
            rss_kib=int(fields["VmRSS"].split()[0]),
            files=len(list(Path(f"/proc/{pid}/fd").iterdir())),
            threads=int(fields["Threads"]),
        )

    def require_same(
        self, pid: int, *, more_mib: int, more_files: int, more_threads: int
    ) -> None:
        """Require that the process holds little more than this, perhaps after a while."""

        def is_same() -> bool:
            now = Usage.of(pid)
            return (
                now.rss_kib - self.rss_kib <= more_mib * 1024
                and now.files - self.files <= more_files
                and now.threads - self.threads <= more_threads
            )

        until(is_same, f"return to {self}", _SETTLE_S, lambda: str(Usage.of(pid)))


def talk(end: socket.socket, data: bytes) -> None:
    """Send, take what comes back for a moment, and close. The other side may close first."""
    with end, suppress(ConnectionError, TimeoutError):
        end.settimeout(5.0)
        end.sendall(data)
        end.settimeout(_ANSWER_S)
        while end.recv(1 << 16):
            pass


def pieces_of(whole: bytes) -> st.SearchStrategy[bytes]:
    """Return what is left of a right message: cut off, damaged, repeated, in another order."""
    places = st.integers(0, len(whole) - 1)
    damage = st.lists(st.tuples(places, st.integers(1, 255)), min_size=1, max_size=8)
    cuts = st.lists(st.tuples(places, places), min_size=1, max_size=6)
    return st.one_of(
        places.map(lambda end: whole[:end]),
        places.map(lambda start: whole[start:]),
        damage.map(lambda changes: _damaged(whole, changes)),
        cuts.map(lambda parts: b"".join(whole[min(p) : max(p)] for p in parts)),
        st.integers(2, 5).map(lambda count: whole * count),
    )


def http2_connections() -> st.SearchStrategy[bytes]:
    """Return connections that speak HTTP/2 up to some point: any frames, in any order."""
    stream = st.one_of(st.integers(0, 7), st.integers(0, (1 << 31) - 1))
    size_lie = st.one_of(st.just(0), st.just(0), st.integers(1, 1 << 20))
    frame = st.builds(
        http2_frame,
        st.one_of(st.integers(0, 10), st.integers(0, 255)),
        flags=st.integers(0, 255),
        stream=stream,
        payload=st.binary(max_size=120),
        size_lie=size_lie,
    )
    frames = st.lists(frame, max_size=20).map(b"".join)
    return st.one_of(
        st.binary(max_size=2000),
        frames.map(lambda data: _MAGIC + data),
        frames.map(lambda data: PREFACE + data),
    )


def http2_frame(
    kind: int, *, flags: int = 0, stream: int = 0, payload: bytes = b"", size_lie: int = 0
) -> bytes:
    """Return a frame; it says `size_lie` bytes more than it has."""
    size = min(len(payload) + size_lie, (1 << 24) - 1)
    head = size.to_bytes(3, "big") + bytes([kind, flags])
    return head + stream.to_bytes(4, "big") + payload


def _damaged(whole: bytes, changes: list[tuple[int, int]]) -> bytes:
    data = bytearray(whole)
    for place, change in changes:
        data[place] ^= change
    return bytes(data)
