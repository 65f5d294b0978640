"""A process that says HELLO, and then anything: its queue fails with an error, or goes on."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.exchange.frames import FrameDecoder, OpenFrame
from tests.flink.hostile import frame, to_socket
from tests.fuzzing import Usage, fuzz, pieces_of, with_patience
from tests.unit.exchange import java

pytestmark = with_patience(100)  # the first test of the session compiles

_HEAP = "48m"
_PATIENCE_S = 15.0
_IN_OPEN = 0x20
_BATCH, _OVERSIZE, _CREDIT, _OVERSIZE_CREDIT, _WATERMARK = 4, 5, 6, 7, 8
_BARRIER_ACK, _END, _IDLE, _DECLINE = 10, 11, 12, 15
_MAPPED = frame(3, 0)
_MESSAGE = (
    pa.record_batch(
        [pa.array([1, 2], pa.int32()), pa.array(["a", None]), pa.array([5, None], pa.int64())],
        names=["i", "s", "ts"],
    )
    .serialize()
    .to_pybytes()
)
_ROWS = ["(1, a)", "(2, NULL)"]
_HEARD = [
    *_ROWS,
    "watermark",
    "acknowledged 7",
    "acknowledged -1",
    "declined 8",
    *_ROWS,
    "acknowledged 9223372036854775807",
    "end",
]


@dataclass(frozen=True, slots=True)
class Files:
    """What the process may name: its own open file, and what is none.

    Attributes:
        mine: A regular file that it holds open; holds a message.
        others: Paths of anything else.
        canary: One of them, which can be read by everybody.
    """

    mine: str
    others: Sequence[str]
    canary: Path

    def right(self) -> list[bytes]:
        """A conversation without a mistake."""
        state = struct.pack("<iq", 0, 10) + self.mine.encode()
        return [
            _MAPPED,
            frame(_CREDIT, 0),
            frame(_CREDIT, 1),
            frame(_OVERSIZE_CREDIT, 0),
            frame(_IDLE, 3),
            frame(_BATCH, 0, struct.pack("<II", len(_MESSAGE), 2)),
            frame(_WATERMARK, 6),
            frame(_BARRIER_ACK, 7, state),
            frame(_BARRIER_ACK, -1),
            frame(_DECLINE, 8),
            frame(_OVERSIZE, len(_MESSAGE), self.mine.encode()),
            frame(_BARRIER_ACK, (1 << 63) - 1, state),
            frame(_END, 0),
        ]

    def conversations(self) -> st.SearchStrategy[bytes]:
        """Frames in any order, missing, repeated, damaged, cut off, and of no sense."""
        right = self.right()
        number = st.one_of(st.integers(-2, 9), st.integers(-(1 << 63), (1 << 63) - 1))
        size = st.one_of(st.integers(-1, 20), st.integers(-(1 << 63), (1 << 63) - 1))
        path = st.one_of(st.sampled_from([self.mine, *self.others]), st.text(max_size=20))
        named = path.map(lambda each: each.encode(errors="replace"))
        file = st.integers(-(1 << 31), (1 << 31) - 1)
        any_frame = st.one_of(
            st.sampled_from(right),
            st.builds(frame, st.integers(0, 17), number, st.binary(max_size=40)),
            st.builds(frame, st.just(_OVERSIZE), size, named),
            st.builds(
                lambda barrier, file, size, path: frame(
                    _BARRIER_ACK, barrier, struct.pack("<iq", file, size) + path
                ),
                st.one_of(st.sampled_from([7, 8, -1, (1 << 63) - 1]), number),
                st.one_of(st.integers(0, 3), file),
                size,
                named,
            ),
        )
        frames = st.lists(any_frame, max_size=12).map(b"".join)
        return st.one_of(
            st.permutations(right[1:]).map(lambda each: _MAPPED + b"".join(each)),
            st.lists(st.sampled_from(right), max_size=20).map(b"".join),
            frames.map(lambda data: _MAPPED + data),
            frames.map(lambda data: b"".join(right[:-1]) + data),
            st.tuples(frames, frames).map(_MAPPED.join),
            pieces_of(b"".join(right)),
            st.binary(max_size=300).map(lambda data: _MAPPED + data),
        )


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with ExitStack() as stack:
        mine, short = os.memfd_create("mine"), os.memfd_create("short")
        end, other_end = os.pipe()
        for each in (mine, short, end, other_end):
            stack.callback(os.close, each)
        os.write(mine, _MESSAGE)
        os.write(short, b"12")
        canary, fifo = tmp_path / "canary", tmp_path / "fifo"
        canary.write_bytes(_MESSAGE)
        os.mkfifo(fifo)
        folder = f"/proc/{os.getpid()}/fd"
        others = [str(canary), str(fifo), str(tmp_path), "/dev/zero", "/proc/self/fd/0"]
        others += [f"{folder}/{short}", f"{folder}/{end}", f"{folder}/999999", folder, ""]
        others += [f"{folder}/..", f"{folder}/../../../{canary}", "\0", "x" * 5000]
        yield Files(f"{folder}/{mine}", others, canary)


class Queues:
    """A JVM that serves one process after the other."""

    def __init__(self, classes: Path, folder: Path) -> None:
        self._socket = folder / "q"
        self._log = (folder / "log").open("wb")
        self.popen = subprocess.Popen(
            java.command(classes, "QueueFuzz", str(folder), heap=_HEAP),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def talk(self, data: bytes, message: bytes = _MESSAGE) -> dict[str, Any]:
        """Be a process that has `message` in each slot and says `data`; return the outcome."""
        assert self.popen.stdin is not None
        self.popen.stdin.write(f"{self._socket}\n")
        self.popen.stdin.flush()
        assert self._line() == "listening"
        with to_socket(str(self._socket))() as end:
            end.settimeout(_PATIENCE_S)
            end.sendall(frame(1, 1, b'{"attempt": 1, "pid": %d}' % os.getpid()))
            offer = _receive_open(end).output
            assert offer is not None
            with Path(offer.path).open("r+b", buffering=0) as segment:
                for slot in range(offer.slots):
                    os.pwrite(segment.fileno(), message, slot * offer.slot_bytes)
            with suppress(ConnectionError):  # it may close in the middle
                end.sendall(data)
                end.shutdown(socket.SHUT_WR)
                while end.recv(1 << 16):
                    pass
        told: dict[str, Any] = json.loads(self._line())
        assert told["outcome"] in ("ended", "lost", "failed"), told
        return told

    def _line(self) -> str:
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().rstrip("\n")

    def maps(self) -> int:
        """How many parts of segments it has mapped."""
        lines = Path(f"/proc/{self.popen.pid}/maps").read_text().splitlines()
        return sum("/headrace-" in line or "/memfd:" in line for line in lines)

    def close(self) -> None:
        self.popen.communicate(timeout=_PATIENCE_S)
        self._log.close()


@pytest.fixture
def queues(java_classes: Path, tmp_path: Path) -> Iterator[Queues]:
    made = Queues(java_classes, tmp_path)
    try:
        yield made
        made.close()
        assert made.popen.returncode == 0
    finally:
        made.popen.kill()
        made.popen.wait()


def _receive_open(end: socket.socket) -> OpenFrame:
    decoder = FrameDecoder()
    while True:
        data = end.recv(1 << 16)
        assert data, "the connection was closed"
        for each in decoder.feed(data):
            assert isinstance(each, OpenFrame)
            return each


class Watch:
    """Tells whether anybody has opened a file since."""

    def __init__(self, path: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK)
        assert self._fd >= 0
        assert libc.inotify_add_watch(self._fd, bytes(path), _IN_OPEN) >= 0

    def was_opened(self) -> bool:
        try:
            return bool(os.read(self._fd, 4096))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._fd)


def test_whatever_a_process_says_its_queue_fails_or_goes_on(
    queues: Queues, files: Files
) -> None:
    right = b"".join(files.right())
    for _ in range(20):
        told = queues.talk(right)
        assert (told["outcome"], told["heard"]) == ("ended", _HEARD)
        assert told["states"] == [files.mine] * 2
    watch = Watch(files.canary)
    before = Usage.of(queues.popen.pid)
    outcomes: Counter[str] = Counter()

    @fuzz(200)
    @given(
        files.conversations(),
        st.one_of(st.just(_MESSAGE), pieces_of(_MESSAGE), st.binary(max_size=600)),
    )
    def say(data: bytes, message: bytes) -> None:
        told = queues.talk(data, message)
        assert set(told["states"]) <= {files.mine}
        if message == _MESSAGE:
            rows = {each for each in told["heard"] if each.startswith("(")}
            assert rows <= set(_ROWS)
        outcomes[told["outcome"]] += 1
        outcomes[told["text"].partition(":")[0].rpartition(".")[2]] += 1

    say()
    assert not watch.was_opened(), "a file that the process does not hold open was opened"
    watch.close()
    assert min(outcomes[each] for each in ("ended", "MalformedMessageException")) >= 10, (
        outcomes
    )
    assert outcomes["PeerLostException"] >= 3, outcomes
    before.require_same(queues.popen.pid, more_mib=64, more_files=2, more_threads=2)
    assert queues.maps() == 0
    told = queues.talk(right)
    assert (told["outcome"], told["heard"]) == ("ended", _HEARD)


def test_a_queue_keeps_nothing_of_what_a_process_has_said(queues: Queues, files: Files) -> None:
    right = files.right()
    long = frame(_WATERMARK, 6, bytes(8192))
    data = _MAPPED + long * 511 + right[-1]
    told = queues.talk(data)
    before = Usage.of(queues.popen.pid)
    for _ in range(24):  # 96 MiB, twice what its heap has room for
        told = queues.talk(data)
        assert (told["outcome"], told["heard"]) == ("ended", ["watermark"] * 511 + ["end"])
    before.require_same(queues.popen.pid, more_mib=48, more_files=2, more_threads=2)
