"""Plays the JVM's side of a memory queue, with real sockets and real segments."""

from __future__ import annotations

import mmap
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from headrace.exchange import TIMESTAMP_COLUMN, Channel
from headrace.exchange.frames import (
    BatchFrame,
    CreditFrame,
    DirectionOffer,
    Frame,
    FrameDecoder,
    HelloFrame,
    IdleFrame,
    MappedFrame,
    OpenFrame,
    OversizeCreditFrame,
    OversizeFrame,
    encode,
)

PATIENCE_S = 10.0
F = TypeVar("F", bound=Frame)


class PeerSegment:
    """A segment file, written over its whole size, and the JVM's view of it."""

    def __init__(self, path: Path, *, slots: int, slot_bytes: int) -> None:
        self.path = path
        self.slots = slots
        self.slot_bytes = slot_bytes
        path.write_bytes(bytes(slots * slot_bytes))
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), slots * slot_bytes)

    def put(self, slot: int, message: bytes) -> None:
        start = slot * self.slot_bytes
        self.memory[start : start + len(message)] = message

    def get(self, slot: int, message_bytes: int) -> bytes:
        start = slot * self.slot_bytes
        return self.memory[start : start + message_bytes]


class Peer:
    """The operator of one role subtask. The test's thread drives both sides in turn."""

    def __init__(
        self,
        directory: Path,
        *,
        input_schema: pa.Schema | None = None,
        output_schema: pa.Schema | None = None,
        slots: int = 4,
        slot_bytes: int = 65_536,
        batch_rows: int = 4096,
        max_row_bytes: int = 1 << 20,
    ) -> None:
        self.socket_path = directory / "q.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket_path))
        self._listener.listen()
        self._connection: socket.socket | None = None
        self._decoder = FrameDecoder()
        self._frames: deque[Frame] = deque()
        self.idle: list[int] = []
        self.free_slots = deque(range(slots))
        self.segments: dict[str, PeerSegment] = {}
        self.schemas: dict[str, pa.Schema] = {}
        self.offers: dict[str, DirectionOffer | None] = {"input": None, "output": None}
        self.hello: HelloFrame | None = None
        for name, schema in (("input", input_schema), ("output", output_schema)):
            if schema is None:
                continue
            wire = schema.append(pa.field(TIMESTAMP_COLUMN, pa.int64()))
            path = directory / f"{name}.seg"
            self.segments[name] = PeerSegment(path, slots=slots, slot_bytes=slot_bytes)
            self.schemas[name] = wire
            self.offers[name] = DirectionOffer(
                path=str(path),
                slots=slots,
                slot_bytes=slot_bytes,
                schema=wire.serialize().to_pybytes(),
                batch_rows=batch_rows,
                max_row_bytes=max_row_bytes,
            )

    def open_channel(
        self, *, attempt: int = 1, greet: Callable[[], None] | None = None
    ) -> Channel:
        """Connect a channel; `greet` plays the JVM's side of the greeting."""
        greeter = threading.Thread(target=greet or self.greet)
        greeter.start()
        try:
            return Channel.connect(
                str(self.socket_path), attempt=attempt, connect_timeout_s=PATIENCE_S
            )
        finally:
            greeter.join(PATIENCE_S)

    def greet(self) -> None:
        self.accept()
        self.hello = self.expect(HelloFrame)
        self.send(OpenFrame(self.offers["input"], self.offers["output"]))
        self.expect(MappedFrame)
        for segment in self.segments.values():
            segment.path.unlink()

    def accept(self) -> None:
        self._listener.settimeout(PATIENCE_S)
        self._connection, _ = self._listener.accept()
        self._connection.settimeout(PATIENCE_S)

    @property
    def connection(self) -> socket.socket:
        assert self._connection is not None
        return self._connection

    def send(self, *frames: Frame) -> None:
        """Send; a process that is gone is noticed when what it had sent before was read."""
        with suppress(BrokenPipeError):
            self.connection.sendall(b"".join(encode(frame) for frame in frames))

    def next_frame(self) -> Frame | None:
        """Take the next frame; None if the process has closed the connection."""
        while not self._frames:
            try:
                data = self.connection.recv(1 << 16)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._take(data)
        return self._frames.popleft()

    def _take(self, data: bytes) -> None:
        for frame in self._decoder.feed(data):
            if isinstance(frame, IdleFrame):
                self.idle.append(frame.batches)
            else:
                self._frames.append(frame)

    def expect(self, kind: type[F]) -> F:
        frame = self.next_frame()
        assert isinstance(frame, kind), frame
        return frame

    def has_frame(self) -> bool:
        """Whether a frame has come by now."""
        self.connection.settimeout(0.0)
        try:
            self._take(self.connection.recv(1 << 16))
        except BlockingIOError:
            pass
        finally:
            self.connection.settimeout(PATIENCE_S)
        return bool(self._frames)

    def send_rows(self, rows: pa.RecordBatch, timestamps_ms: pa.Array | None = None) -> int:
        """Write `rows` into a free slot, waiting for a credit if need be; return it."""
        while not self.free_slots:
            self.free_slots.append(self.expect(CreditFrame).slot)
        slot = self.free_slots.popleft()
        message = self.message(rows, timestamps_ms)
        self.segments["input"].put(slot, message)
        self.send(BatchFrame(slot, len(message), rows.num_rows))
        return slot

    def message(self, rows: pa.RecordBatch, timestamps_ms: pa.Array | None = None) -> bytes:
        if timestamps_ms is None:
            timestamps_ms = pa.nulls(rows.num_rows, pa.int64())
        wire = self.schemas["input"]
        data: bytes = (
            pa.RecordBatch.from_arrays([*rows.columns, timestamps_ms], schema=wire)
            .serialize()
            .to_pybytes()
        )
        return data

    def take_rows(
        self, frame: Frame | None = None, *, with_credit: bool = True
    ) -> pa.RecordBatch:
        """Read the rows of `frame` (by default the next one), hidden column included."""
        frame = frame or self.next_frame()
        if isinstance(frame, OversizeFrame):
            message = Path(frame.path).read_bytes()
            assert len(message) == frame.message_bytes
            answer: Frame = OversizeCreditFrame()
            rows = 1
        else:
            assert isinstance(frame, BatchFrame), frame
            message = self.segments["output"].get(frame.slot, frame.message_bytes)
            answer = CreditFrame(frame.slot)
            rows = frame.rows
        batch = pa.ipc.read_record_batch(pa.py_buffer(message), self.schemas["output"])
        assert batch.num_rows == rows
        if with_credit:
            self.send(answer)
        return batch

    def hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()

    def close(self) -> None:
        self.hang_up()
        self._listener.close()


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[None]:
    """Run `work` beside the block; its error is raised at the end of the block."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:  # noqa: BLE001 (raised below)
            errors.append(exc)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(PATIENCE_S)
    assert not thread.is_alive(), "the work beside the block has not ended"
    if errors:
        raise errors[0]
