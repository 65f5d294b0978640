"""Nonsense for the socket of a memory queue: the JVM serves its process all the same."""

from __future__ import annotations

import subprocess
import threading
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.flink.hostile import frame, to_socket
from tests.fuzzing import Usage, fuzz, pieces_of, talk, with_patience
from tests.unit.exchange import java
from tests.unit.exchange.test_java_queue import PATIENCE_S, echo

pytestmark = with_patience(100)  # the first test of the session compiles

_HELLO = frame(1, 1, b'{"attempt": 1, "pid": 1}')
_ROWS = 30_000
_HEAP = "48m"
_MUCH = frame(1, 1, b"not JSON") + bytes((1 << 16) - 24)
_FRAME = st.builds(
    frame,
    st.one_of(st.integers(0, 16), st.integers(0, 255)),
    st.one_of(st.integers(-1, 9), st.integers(-(1 << 63), (1 << 63) - 1)),
    st.binary(max_size=60),
)
_BROKEN_HELLOS = [
    frame(1, version, payload)
    for version in (0, 1, 2, -1)
    for payload in (b"", b"null", b"[]", b'{"attempt": 1, ', b"[" * 1000, b'{"attempt": 1}')
]


def _may_be_hello(data: bytes) -> bool:
    """Say whether it may be right: whoever says HELLO is the process, and takes its place."""
    return data[:1] == b"\x01" and b"attempt" in data and b"pid" in data


_NONSENSE = st.one_of(
    st.binary(max_size=500),
    st.lists(_FRAME, max_size=8).map(b"".join),
    pieces_of(_HELLO),
    st.sampled_from(_BROKEN_HELLOS),
).filter(lambda data: not _may_be_hello(data))


def test_frames_of_strangers_do_the_queue_no_harm(java_classes: Path, tmp_path: Path) -> None:
    path = tmp_path / "q"
    arguments = [str(path), str(tmp_path), str(_ROWS), "4", "65536", "500", "10", "0"]
    connect = to_socket(str(path))
    with subprocess.Popen(
        java.command(java_classes, "QueueEcho", *arguments, heap=_HEAP),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as jvm:
        assert jvm.stdout is not None
        try:
            assert jvm.stdout.readline() == "listening\n"
            for _ in range(20):
                talk(connect(), b"\xff" * 100)
            before = Usage.of(jvm.pid)

            @fuzz(100)
            @given(_NONSENSE)
            def say(data: bytes) -> None:
                talk(connect(), data)

            say()
            for _ in range(1536):  # 96 MiB, twice what its heap has room for
                talk(connect(), _MUCH)
            before.require_same(jvm.pid, more_mib=48, more_files=2, more_threads=2)
            assert _rows_beside_a_stranger(path) == _ROWS
            output, _ = jvm.communicate(timeout=PATIENCE_S)
        except BaseException:
            jvm.kill()
            print(jvm.stdout.read())  # noqa: T201 - pytest shows it with the failure
            raise
    assert output.startswith(f"ok {_ROWS} rows"), output


def _rows_beside_a_stranger(path: Path) -> int:
    """Be the process, while somebody says HELLO and END again and again."""
    is_connected, is_over = threading.Event(), threading.Event()
    connect = to_socket(str(path))

    def disturb() -> None:
        is_connected.wait(PATIENCE_S)
        with suppress(OSError):  # the queue is closed at the end
            while not is_over.wait(0.002):
                talk(connect(), _HELLO + frame(11, 0))

    stranger = threading.Thread(target=disturb)
    stranger.start()
    try:
        return echo(path, is_connected.set)
    finally:
        is_connected.set()
        is_over.set()
        stranger.join(PATIENCE_S)
