"""The memory queue, seen from the algorithm process."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pyarrow as pa

from headrace.errors import PeerLostError, ProtocolError, UsageError
from headrace.exchange.conform import conform
from headrace.exchange.connection import FrameConnection
from headrace.exchange.direction import InputDirection, OutputDirection
from headrace.exchange.frames import (
    PROTOCOL_VERSION,
    AbortFrame,
    BarrierAckFrame,
    BarrierFrame,
    BatchFrame,
    CompleteFrame,
    CreditFrame,
    DeclineFrame,
    EndFrame,
    Frame,
    HelloFrame,
    IdleFrame,
    MappedFrame,
    OpenFrame,
    OversizeCreditFrame,
    OversizeFrame,
    StateCreditFrame,
    WatermarkFrame,
)
from headrace.exchange.items import Barrier, End, Item, Watermark
from headrace.exchange.state_files import StateFile, StateFiles

__all__ = ["Channel"]

_SETTING = "timeouts.process_start_timeout_s"
_EVERY_BARRIER = 2**63 - 1
_OTHER_PROCESS = (
    "The memory queue was used in another process than the one that opened it, for example in "
    "a DataLoader worker. Use num_workers=0: the rows come from shared memory already"
)


class Channel:
    """One end of a memory queue; a `Feed`.

    Thread model: one thread at a time, in the process that connected (a forked child gets a
    `UsageError`). A wait releases the GIL and ends with the death of the other side. A `send`
    that waits for room goes on reading frames, so two full directions cannot block each other.

    Any error other than `DataError`, `RowTooLargeError` and `UsageError` leaves the channel
    unusable: close it and end.
    """

    def __init__(
        self,
        connection: FrameConnection,
        received: InputDirection | None,
        sent: OutputDirection | None,
    ) -> None:
        """Wrap an open connection; use `connect`."""
        self._connection = connection
        self._input = received
        self._output = sent
        self._input_schema = None if received is None else received.schema
        self._output_schema = None if sent is None else sent.schema
        self._inbox: deque[BatchFrame | OversizeFrame | Watermark | Barrier | End] = deque()
        self._is_input_ended = False
        self._taken_batches = 0
        self._idle_batches = 0
        self._has_sent_end = False
        self._states = StateFiles()
        self._aborted_id: int | None = None
        self._on_complete: Callable[[int], object] = lambda _: None
        self._pid = os.getpid()
        self._use = threading.Lock()

    @classmethod
    def connect(cls, socket_path: str, *, attempt: int, connect_timeout_s: float) -> Channel:
        """Connect to the operator and map its segments. Blocks for at most `connect_timeout_s`.

        Args:
            socket_path: Path of the operator's Unix socket.
            attempt: Number of the group's start that this process belongs to.
            connect_timeout_s: Longest wait for the whole greeting, in seconds.

        Raises:
            ExchangeError: Nobody listens, or a segment cannot be mapped.
            WaitTimeoutError: The operator did not answer in time.
            ProtocolError: It speaks another version, or what it offers makes no sense.
        """
        deadline = time.monotonic() + connect_timeout_s
        connection = FrameConnection(socket_path, connect_timeout_s=connect_timeout_s)
        try:
            connection.queue(HelloFrame(attempt=attempt, pid=os.getpid()))
            answer = connection.exchange_one(
                deadline,
                waited_for="the operator's answer on the memory queue",
                setting=_SETTING,
            )
            offer = _require_open(answer)
            received = None if offer.input is None else InputDirection(offer.input)
            sent = None
            if offer.output is not None:
                sent = OutputDirection(offer.output, fallback_dir=str(Path(socket_path).parent))
            connection.queue(MappedFrame())
            connection.try_flush()
        except BaseException:
            connection.close()
            raise
        return cls(connection, received, sent)

    @property
    def input_schema(self) -> pa.Schema | None:
        """Columns that come in, without the hidden timestamp; None if nothing comes in."""
        return self._input_schema

    @property
    def output_schema(self) -> pa.Schema | None:
        """Columns that go out, without the hidden timestamp; None if nothing goes out."""
        return self._output_schema

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:
        """Take the next item; see `Feed.receive`. Batches lie in shared memory, uncopied."""
        with self._in_use():
            received = self._input
            if received is None:
                msg = "This role has no input: it gets no rows"
                raise UsageError(msg)
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            if self._is_input_ended:
                deadline = 0.0
            self._give_back_slots(received)
            while not self._inbox:
                if self._pump():
                    continue
                if says_idle:
                    self._say_idle()
                if not self._connection.wait(deadline):
                    return End() if self._is_input_ended else None
            head = self._inbox.popleft()
            if isinstance(head, BatchFrame | OversizeFrame):
                self._taken_batches += 1
            if isinstance(head, BatchFrame):
                return received.open_batch(head)
            if isinstance(head, OversizeFrame):
                batch = received.open_oversize(head)
                self._send_frame(OversizeCreditFrame())
                return batch
            if isinstance(head, End):
                self._is_input_ended = True
            return head

    def expect_state(self, size_bytes: int) -> None:
        """Make memory for the first state ahead; see `Feed.expect_state`."""
        with self._in_use():
            self._states.expect(size_bytes)

    def take_state(self, size_bytes: int) -> StateFile:
        """Return memory for a state; see `Feed.take_state`."""
        with self._in_use():
            while self._pump():  # credits may have come
                pass
            return self._states.take(size_bytes)

    def is_aborted(self, checkpoint_id: int) -> bool:
        """Say whether that checkpoint will not complete; see `Feed.is_aborted`."""
        with self._in_use():
            while self._pump():
                pass
            return self._aborted_id is not None and checkpoint_id <= self._aborted_id

    def watch(self, *, timeout_s: float) -> None:
        """Wait for a frame, and take no item; see `Feed.watch`."""
        with self._in_use():
            if self._input is not None:
                self._give_back_slots(self._input)
            if not self._pump() and self._connection.wait(time.monotonic() + timeout_s):
                self._pump()

    def acknowledge(self, checkpoint_id: int, state: StateFile | None = None) -> None:
        """Say that what was before the barrier is done; see `Feed.acknowledge`."""
        with self._in_use():
            self._acknowledge(checkpoint_id, state)

    def on_complete(self, call: Callable[[int], object]) -> None:
        """Name who is told of completed checkpoints; see `Feed.on_complete`."""
        self._on_complete = call

    def let_go(self, state: StateFile) -> None:
        """Say that a state is read no longer; see `Feed.let_go`."""
        self._states.let_go(state)

    def decline(self, checkpoint_id: int) -> None:
        """Say that a barrier will not be acknowledged; see `Feed.decline`."""
        with self._in_use():
            self._send_frame(DeclineFrame(checkpoint_id))

    def acknowledge_every(self, state: StateFile | None = None) -> None:
        """Say that no later barrier must wait; see `Feed.acknowledge_every`."""
        self.acknowledge(_EVERY_BARRIER, state)

    def send(self, batch: pa.RecordBatch, timestamps_ms: pa.Array | None = None) -> None:
        """Send rows; see `Feed.send`. Waits for as long as the operator is behind and lives."""
        with self._in_use():
            sent = self._output
            if sent is None:
                msg = "This role has no output: give `add_role` an `output` schema to emit rows"
                raise UsageError(msg)
            self._require_not_ended()
            rows = sent.with_timestamps(conform(batch, sent.schema), timestamps_ms)
            for message, message_rows in sent.messages(rows):
                if message.size <= sent.slot_bytes:
                    while not sent.segment.has_free_slot:
                        self._pump_or_wait()
                    slot = sent.segment.write(message)
                    self._send_frame(BatchFrame(slot, message.size, message_rows))
                else:
                    while sent.is_oversize_outstanding:
                        self._pump_or_wait()
                    self._send_frame(sent.write_oversize(message))

    def send_watermark(self, timestamp_ms: int) -> None:
        """Send a watermark; see `Feed.send_watermark`. Does nothing without an output."""
        with self._in_use():
            if self._output is not None:
                self._require_not_ended()
                self._send_frame(WatermarkFrame(timestamp_ms))

    def send_end(self, state: StateFile | None = None) -> None:
        """Say that nothing more will be sent; see `Feed.send_end`.

        Waits until the operator has read an oversized row and opened `state`: their files end
        with this process.
        """
        with self._in_use():
            if self._has_sent_end:
                return
            while self._output is not None and self._output.is_oversize_outstanding:
                self._pump_or_wait()
            if state is not None:
                self._acknowledge(_EVERY_BARRIER, state)
            self._send_frame(EndFrame())
            self._has_sent_end = True
            with contextlib.suppress(PeerLostError):  # nobody is left who would want it
                while state is not None and self._states.is_out(state):
                    if not self._pump():
                        self._connection.wait(None)

    def close(self) -> None:
        """Close the connection and let go of the segments. Idempotent.

        Batches that were received stay valid. Without `send_end` before it, the operator takes
        it for a failure.
        """
        self._connection.close()
        self._states.close()
        self._inbox.clear()
        if self._output is not None:
            self._output.close_oversize()
        self._input = None
        self._output = None

    def __reduce__(self) -> NoReturn:
        raise UsageError(_OTHER_PROCESS)

    def _in_use(self) -> threading.Lock:
        """Return a lock for the call that begins; it is free, or this is a wrong use."""
        if os.getpid() != self._pid:
            raise UsageError(_OTHER_PROCESS)
        if self._connection.is_closed:
            msg = "The memory queue is closed"
            raise UsageError(msg)
        if self._use.locked():
            msg = "The memory queue is used by two threads at the same time; use one"
            raise UsageError(msg)
        return self._use

    def _say_idle(self) -> None:
        """Tell the operator, once per wait, that everything it has sent was taken."""
        if self._idle_batches != self._taken_batches:
            self._idle_batches = self._taken_batches
            self._connection.queue(IdleFrame(self._taken_batches))
            self._connection.try_flush()

    def _require_not_ended(self) -> None:
        if self._has_sent_end:
            msg = "Nothing can be sent after the end of the output"
            raise UsageError(msg)

    def _acknowledge(self, checkpoint_id: int, state: StateFile | None) -> None:
        if state is None:
            self._send_frame(BarrierAckFrame(checkpoint_id))
        else:
            self._states.lend(state)
            self._send_frame(BarrierAckFrame(checkpoint_id, state.offer))

    def _give_back_slots(self, received: InputDirection) -> None:
        slots = received.segment.take_returned()
        for slot in slots:
            self._connection.queue(CreditFrame(slot))
        if slots:
            with contextlib.suppress(
                PeerLostError
            ):  # what had come before is still to be taken
                self._connection.try_flush()

    def _send_frame(self, frame: Frame) -> None:
        self._connection.queue(frame)
        while not self._connection.try_flush():
            self._pump_or_wait()

    def _pump_or_wait(self) -> None:
        if self._input is not None:
            self._give_back_slots(self._input)
        if not self._pump():
            self._connection.wait(None)

    def _pump(self) -> bool:
        """Take what is there, or else send what is queued; return whether frames came."""
        frames = self._connection.try_read()
        for frame in frames:
            self._on_frame(frame)
        if not frames:
            self._connection.try_flush()
        return bool(frames)

    def _on_frame(self, frame: Frame) -> None:
        match frame:
            case BatchFrame() | OversizeFrame() if self._input is not None:
                self._inbox.append(frame)
            case CreditFrame() if self._output is not None:
                self._output.segment.give_back(frame.slot)
            case OversizeCreditFrame() if self._output is not None:
                self._output.close_oversize()
            case WatermarkFrame() if self._input is not None:
                if self._inbox and isinstance(self._inbox[-1], Watermark):
                    self._inbox.pop()
                self._inbox.append(Watermark(frame.timestamp_ms))
            case BarrierFrame() if self._input is not None:
                self._inbox.append(Barrier(frame.checkpoint_id))
            case StateCreditFrame() if self._states.give_back(frame.number):
                pass
            case AbortFrame():
                self._aborted_id = frame.checkpoint_id
            case CompleteFrame():
                self._on_complete(frame.checkpoint_id)
            case EndFrame():
                if self._input is not None:
                    self._inbox.append(End())
            case _:
                msg = f"The operator sent {frame}, which has no place here"
                raise ProtocolError(msg)


def _require_open(answer: Frame) -> OpenFrame:
    if not isinstance(answer, OpenFrame) or answer.version != PROTOCOL_VERSION:
        msg = f"The operator answered HELLO (version {PROTOCOL_VERSION}) with {answer}"
        raise ProtocolError(msg)
    return answer
