"""The frames of the memory queue: bytes to values and back, without I/O.

A frame is a header of 16 bytes (`u8 type, u8[3] zero, u32 payload_bytes, i64 value`) and a
payload; everything is little-endian. Decoding is strict: what the protocol does not allow is a
`ProtocolError`.

Source: docs/exchange.md, section 3.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any, TypeAlias

from headrace.errors import ProtocolError

__all__ = [
    "HEADER_BYTES",
    "MAX_PAYLOAD_BYTES",
    "PROTOCOL_VERSION",
    "BarrierAckFrame",
    "BarrierFrame",
    "BatchFrame",
    "CreditFrame",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectionOffer:
    """One direction of the queue as the JVM has created it.

    Attributes:
        path: Absolute path of the segment's file.
        slots: Batches that fit.
        slot_bytes: Bytes of one slot.
        schema: Arrow IPC schema message, hidden timestamp column included.
        batch_rows: Most rows in one batch.
        max_row_bytes: A single row over this is an error.
    """

    path: str
    slots: int
    slot_bytes: int
    schema: bytes
    batch_rows: int
    max_row_bytes: int


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
    """Everything before the barrier was handled and emitted."""

    checkpoint_id: int


@dataclass(frozen=True, slots=True)
class EndFrame:
    """No more batches in this direction."""


@dataclass(frozen=True, slots=True)
class IdleFrame:
    """The process has taken that many batches and waits for the next one."""

    batches: int


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
            return 10, frame.checkpoint_id, b""
        case IdleFrame():
            return 12, frame.batches, b""
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
            offers = {"input": _offer(frame.input), "output": _offer(frame.output)}
            return 2, frame.version, json.dumps(offers).encode()


def _offer(offer: DirectionOffer | None) -> dict[str, Any] | None:
    if offer is None:
        return None
    return {
        "path": offer.path,
        "slots": offer.slots,
        "slot_bytes": offer.slot_bytes,
        "schema": base64.b64encode(offer.schema).decode("ascii"),
        "batch_rows": offer.batch_rows,
        "max_row_bytes": offer.max_row_bytes,
    }


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
                raise _wrong(name="BATCH", what=f"its payload has {len(payload)} bytes, not 8")
            message_bytes, rows = _BATCH_PAYLOAD.unpack(payload)
            return BatchFrame(_at_least(0, "BATCH", value), message_bytes, rows)
        case 5:
            return OversizeFrame(_at_least(1, "OVERSIZE", value), _text("OVERSIZE", payload))
        case 1:
            fields = _json("HELLO", payload)
            return HelloFrame(
                attempt=_integer("HELLO", fields, "attempt"),
                pid=_integer("HELLO", fields, "pid"),
                version=value,
            )
        case 2:
            fields = _json("OPEN", payload)
            return OpenFrame(_direction(fields, "input"), _direction(fields, "output"), value)
        case 12 if not payload:
            return IdleFrame(_at_least(0, "IDLE", value))
        case 6 | 8 | 9 | 10 if not payload:
            if code == 8:
                return WatermarkFrame(value)
            if code == 6:
                return CreditFrame(_at_least(0, "CREDIT", value))
            return BarrierFrame(value) if code == 9 else BarrierAckFrame(value)
        case 3 | 7 | 11 if not payload and value == 0:
            if code == 7:
                return OversizeCreditFrame()
            return MappedFrame() if code == 3 else EndFrame()
        case 3 | 6 | 7 | 8 | 9 | 10 | 11 | 12:
            raise _wrong(
                name=f"type {code}", what=f"value {value}, {len(payload)} payload bytes"
            )
        case _:
            msg = f"A frame has the unknown type {code}"
            raise ProtocolError(msg)


def _wrong(*, name: str, what: str) -> ProtocolError:
    return ProtocolError(f"A frame {name} breaks the protocol: {what}")


def _at_least(least: int, name: str, value: int) -> int:
    if value < least:
        raise _wrong(name=name, what=f"value {value}")
    return value


def _text(name: str, payload: bytes) -> str:
    try:
        text = payload.decode()
    except UnicodeDecodeError as exc:
        raise _wrong(name=name, what="its payload is not UTF-8") from exc
    if not text or "\0" in text:
        raise _wrong(name=name, what=f"{text!r} is not a path")
    return text


def _json(name: str, payload: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(payload)
    except ValueError as exc:
        raise _wrong(name=name, what="its payload is not JSON") from exc
    if not isinstance(fields, dict):
        raise _wrong(name=name, what="its payload is not a JSON object")
    return fields


def _integer(name: str, fields: dict[str, Any], key: str, least: int = 0) -> int:
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _wrong(name=name, what=f"{key}={value!r}")
    return value


def _direction(fields: dict[str, Any], key: str) -> DirectionOffer | None:
    offer = fields.get(key)
    if offer is None:
        return None
    if not isinstance(offer, dict):
        raise _wrong(name="OPEN", what=f"{key}={offer!r}")
    path, schema = offer.get("path"), offer.get("schema")
    if not isinstance(path, str) or not path or not isinstance(schema, str):
        raise _wrong(name="OPEN", what=f"{key}.path={path!r} or {key}.schema is not a text")
    try:
        schema_bytes = base64.b64decode(schema, validate=True)
    except binascii.Error as exc:
        raise _wrong(name="OPEN", what=f"{key}.schema is not base64") from exc
    slot_bytes = _integer("OPEN", offer, "slot_bytes", 4096)
    if slot_bytes % 4096:
        raise _wrong(name="OPEN", what=f"{key}.slot_bytes={slot_bytes}")
    return DirectionOffer(
        path=path,
        slots=_integer("OPEN", offer, "slots", 1),
        slot_bytes=slot_bytes,
        schema=schema_bytes,
        batch_rows=_integer("OPEN", offer, "batch_rows", 1),
        max_row_bytes=_integer("OPEN", offer, "max_row_bytes", 1),
    )
