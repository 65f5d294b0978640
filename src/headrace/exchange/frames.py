"""The frames of the memory queue: bytes to values and back, without I/O.

A frame is a header of 16 bytes (`u8 type, u8[3] zero, u32 payload_bytes, i64 value`) and a
payload; everything is little-endian. Decoding is strict: what the protocol does not allow is a
`ProtocolError`.

Source: docs/exchange.md, section 3.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import TypeAlias

from headrace.errors import ProtocolError
from headrace.exchange.offers import (
    DirectionOffer,
    StateOffer,
    breach,
    decode_direction,
    decode_json,
    decode_path,
    decode_state,
    encode_direction,
    encode_state,
    require_integer,
)

__all__ = [
    "HEADER_BYTES",
    "MAX_PAYLOAD_BYTES",
    "PROTOCOL_VERSION",
    "AbortFrame",
    "BarrierAckFrame",
    "BarrierFrame",
    "BatchFrame",
    "CompleteFrame",
    "CreditFrame",
    "DeclineFrame",
    "DirectionOffer",
    "EndFrame",
    "Frame",
    "FrameDecoder",
    "HelloFrame",
    "IdleFrame",
    "MappedFrame",
    "OpenFrame",
    "OversizeCreditFrame",
    "OversizeFrame",
    "StateCreditFrame",
    "StateOffer",
    "WatermarkFrame",
    "encode",
]

PROTOCOL_VERSION = 1
HEADER_BYTES = 16
MAX_PAYLOAD_BYTES = 1 << 20

_HEADER = struct.Struct("<B3sIq")
_BATCH_PAYLOAD = struct.Struct("<II")
_ZEROS = b"\0\0\0"


@dataclass(frozen=True, slots=True)
class HelloFrame:
    """The process greets: its attempt and its pid."""

    attempt: int
    pid: int
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class OpenFrame:
    """The JVM offers its directions; None where the role has no such direction."""

    input: DirectionOffer | None
    output: DirectionOffer | None
    version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class MappedFrame:
    """The process has mapped every segment."""


@dataclass(frozen=True, slots=True)
class BatchFrame:
    """A batch lies in a slot."""

    slot: int
    message_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class OversizeFrame:
    """A row lies in a file of its own."""

    message_bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class CreditFrame:
    """A slot may be written again."""

    slot: int


@dataclass(frozen=True, slots=True)
class OversizeCreditFrame:
    """The next oversize file may be written."""


@dataclass(frozen=True, slots=True)
class WatermarkFrame:
    """Flink's watermark at this place of the stream, in milliseconds."""

    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class BarrierFrame:
    """A Flink checkpoint lies at this place of the stream."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class BarrierAckFrame:
    """Everything before the barrier was handled and emitted, and this is the state then.

    Attributes:
        checkpoint_id: The barrier's.
        state: None if the process keeps no state.
    """

    checkpoint_id: int
    state: StateOffer | None = None


@dataclass(frozen=True, slots=True)
class EndFrame:
    """No more batches in this direction."""


@dataclass(frozen=True, slots=True)
class IdleFrame:
    """The process has taken that many batches and waits for the next one."""

    batches: int


@dataclass(frozen=True, slots=True)
class StateCreditFrame:
    """A state file may be written over; after END: the JVM holds it open."""

    number: int


@dataclass(frozen=True, slots=True)
class AbortFrame:
    """A checkpoint, whose barrier has been sent, will not complete."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class DeclineFrame:
    """A barrier will not be acknowledged, and the process goes on behind it."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class CompleteFrame:
    """A checkpoint, whose barrier was acknowledged, has completed."""

    checkpoint_id: int


Frame: TypeAlias = (
    HelloFrame
    | OpenFrame
    | MappedFrame
    | BatchFrame
    | OversizeFrame
    | CreditFrame
    | OversizeCreditFrame
    | WatermarkFrame
    | BarrierFrame
    | BarrierAckFrame
    | EndFrame
    | IdleFrame
    | StateCreditFrame
    | AbortFrame
    | DeclineFrame
    | CompleteFrame
)


def encode(frame: Frame) -> bytes:
    """Return the bytes of `frame`.

    Raises:
        ProtocolError: A value does not fit its place on the wire.
    """
    code, value, payload = _parts(frame)
    if len(payload) > MAX_PAYLOAD_BYTES:
        msg = f"The payload of {type(frame).__name__} has {len(payload)} bytes, over 1 MiB"
        raise ProtocolError(msg)
    try:
        return _HEADER.pack(code, _ZEROS, len(payload), value) + payload
    except struct.error as exc:
        msg = f"{frame} does not fit the wire: {exc}"
        raise ProtocolError(msg) from exc


def _parts(frame: Frame) -> tuple[int, int, bytes]:
    match frame:
        case BatchFrame():
            try:
                return 4, frame.slot, _BATCH_PAYLOAD.pack(frame.message_bytes, frame.rows)
            except struct.error as exc:
                msg = f"{frame} does not fit the wire: {exc}"
                raise ProtocolError(msg) from exc
        case CreditFrame():
            return 6, frame.slot, b""
        case WatermarkFrame():
            return 8, frame.timestamp_ms, b""
        case BarrierFrame():
            return 9, frame.checkpoint_id, b""
        case BarrierAckFrame():
            return 10, frame.checkpoint_id, encode_state(frame.state)
        case IdleFrame():
            return 12, frame.batches, b""
        case StateCreditFrame():
            return 13, frame.number, b""
        case AbortFrame():
            return 14, frame.checkpoint_id, b""
        case DeclineFrame():
            return 15, frame.checkpoint_id, b""
        case CompleteFrame():
            return 16, frame.checkpoint_id, b""
        case OversizeFrame():
            return 5, frame.message_bytes, frame.path.encode()
        case OversizeCreditFrame():
            return 7, 0, b""
        case EndFrame():
            return 11, 0, b""
        case MappedFrame():
            return 3, 0, b""
        case HelloFrame():
            hello = {"attempt": frame.attempt, "pid": frame.pid}
            return 1, frame.version, json.dumps(hello).encode()
        case OpenFrame():
            offers = {
                "input": encode_direction(frame.input),
                "output": encode_direction(frame.output),
            }
            return 2, frame.version, json.dumps(offers).encode()


class FrameDecoder:
    """Cuts a stream of bytes into frames.

    Pure: give it what the socket gave, in pieces of any size, and take the frames. Not
        thread-safe.
    After a `ProtocolError` the decoder must not be used again.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def has_partial_frame(self) -> bool:
        """Whether the bytes so far end inside a frame."""
        return bool(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> list[Frame]:
        """Add `data` and return the frames that are complete now, in order.

        Raises:
            ProtocolError: The bytes are not what the protocol allows.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        start = 0
        while len(buffer) - start >= HEADER_BYTES:
            code, zeros, payload_bytes, value = _HEADER.unpack_from(buffer, start)
            if zeros != _ZEROS or payload_bytes > MAX_PAYLOAD_BYTES:
                header = bytes(buffer[start : start + HEADER_BYTES]).hex()
                msg = (
                    f"No frame has the header {header}: padding not zero, or payload over 1 MiB"
                )
                raise ProtocolError(msg)
            end = start + HEADER_BYTES + payload_bytes
            if len(buffer) < end:
                break
            frames.append(_frame(code, value, bytes(buffer[start + HEADER_BYTES : end])))
            start = end
        del buffer[:start]
        return frames


def _frame(code: int, value: int, payload: bytes) -> Frame:
    match code:
        case 4:
            if len(payload) != _BATCH_PAYLOAD.size:
                raise breach(name="BATCH", what=f"its payload has {len(payload)} bytes, not 8")
            message_bytes, rows = _BATCH_PAYLOAD.unpack(payload)
            return BatchFrame(_at_least(0, "BATCH", value), message_bytes, rows)
        case 5:
            return OversizeFrame(
                _at_least(1, "OVERSIZE", value), decode_path("OVERSIZE", payload)
            )
        case 1:
            fields = decode_json("HELLO", payload)
            return HelloFrame(
                attempt=require_integer("HELLO", fields, "attempt"),
                pid=require_integer("HELLO", fields, "pid"),
                version=value,
            )
        case 2:
            fields = decode_json("OPEN", payload)
            return OpenFrame(
                decode_direction(fields, "input"), decode_direction(fields, "output"), value
            )
        case 12 if not payload:
            return IdleFrame(_at_least(0, "IDLE", value))
        case 10:
            return BarrierAckFrame(value, decode_state(payload))
        case 6 | 8 | 9 if not payload:
            if code == 8:
                return WatermarkFrame(value)
            if code == 6:
                return CreditFrame(_at_least(0, "CREDIT", value))
            return BarrierFrame(value)
        case 13 | 14 | 15 | 16 if not payload:
            if code == 13:
                return StateCreditFrame(_at_least(0, "STATE_CREDIT", value))
            if code == 14:
                return AbortFrame(_at_least(0, "ABORT", value))
            if code == 15:
                return DeclineFrame(_at_least(0, "DECLINE", value))
            return CompleteFrame(_at_least(0, "COMPLETE", value))
        case 3 | 7 | 11 if not payload and value == 0:
            if code == 7:
                return OversizeCreditFrame()
            return MappedFrame() if code == 3 else EndFrame()
        case 3 | 6 | 7 | 8 | 9 | 11 | 12 | 13 | 14 | 15 | 16:
            raise breach(
                name=f"type {code}", what=f"value {value}, {len(payload)} payload bytes"
            )
        case _:
            msg = f"A frame has the unknown type {code}"
            raise ProtocolError(msg)


def _at_least(least: int, name: str, value: int) -> int:
    if value < least:
        raise breach(name=name, what=f"value {value}")
    return value
