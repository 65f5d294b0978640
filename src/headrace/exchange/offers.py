"""What the sides of a memory queue offer each other, as it lies in payloads of frames."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from typing import Any

from headrace.errors import ProtocolError

__all__ = [
    "DirectionOffer",
    "StateOffer",
    "breach",
    "decode_direction",
    "decode_json",
    "decode_path",
    "decode_state",
    "encode_direction",
    "encode_state",
    "require_integer",
]

_STATE_PAYLOAD = struct.Struct("<Iq")


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
class StateOffer:
    """The state of the process, in a file that it holds open.

    Attributes:
        number: Which of its state files; the credit for it has the same.
        size_bytes: Bytes of the state, from the start of the file; at least 1.
        path: Where the JVM opens it.
    """

    number: int
    size_bytes: int
    path: str


def breach(*, name: str, what: str) -> ProtocolError:
    """Return the error for a frame that the protocol does not allow."""
    return ProtocolError(f"A frame {name} breaks the protocol: {what}")


def encode_state(offer: StateOffer | None) -> bytes:
    """Return the payload of an acknowledgement.

    Raises:
        ProtocolError: A number does not fit the wire.
    """
    if offer is None:
        return b""
    try:
        return _STATE_PAYLOAD.pack(offer.number, offer.size_bytes) + offer.path.encode()
    except struct.error as exc:
        msg = f"{offer} does not fit the wire: {exc}"
        raise ProtocolError(msg) from exc


def decode_state(payload: bytes) -> StateOffer | None:
    """Return the offer in the payload of an acknowledgement, None if it has none.

    Raises:
        ProtocolError: It is none.
    """
    if not payload:
        return None
    if len(payload) < _STATE_PAYLOAD.size:
        raise breach(name="BARRIER_ACK", what=f"its payload has {len(payload)} bytes")
    number, size_bytes = _STATE_PAYLOAD.unpack_from(payload)
    if size_bytes < 1:
        raise breach(name="BARRIER_ACK", what=f"a state of {size_bytes} bytes")
    path = decode_path("BARRIER_ACK", payload[_STATE_PAYLOAD.size :])
    return StateOffer(number, size_bytes, path)


def encode_direction(offer: DirectionOffer | None) -> dict[str, Any] | None:
    """Return the JSON value for one direction of OPEN."""
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


def decode_direction(fields: dict[str, Any], key: str) -> DirectionOffer | None:
    """Return the direction `key` of OPEN.

    Raises:
        ProtocolError: It makes no sense.
    """
    offer = fields.get(key)
    if offer is None:
        return None
    if not isinstance(offer, dict):
        raise breach(name="OPEN", what=f"{key}={offer!r}")
    path, schema = offer.get("path"), offer.get("schema")
    if not isinstance(path, str) or not path or not isinstance(schema, str):
        raise breach(name="OPEN", what=f"{key}.path={path!r} or {key}.schema is not a text")
    try:
        schema_bytes = base64.b64decode(schema, validate=True)
    except binascii.Error as exc:
        raise breach(name="OPEN", what=f"{key}.schema is not base64") from exc
    slot_bytes = require_integer("OPEN", offer, "slot_bytes", 4096)
    if slot_bytes % 4096:
        raise breach(name="OPEN", what=f"{key}.slot_bytes={slot_bytes}")
    return DirectionOffer(
        path=path,
        slots=require_integer("OPEN", offer, "slots", 1),
        slot_bytes=slot_bytes,
        schema=schema_bytes,
        batch_rows=require_integer("OPEN", offer, "batch_rows", 1),
        max_row_bytes=require_integer("OPEN", offer, "max_row_bytes", 1),
    )


def decode_path(name: str, payload: bytes) -> str:
    """Return the path that is the payload of the frame `name`.

    Raises:
        ProtocolError: It is none.
    """
    try:
        text = payload.decode()
    except UnicodeDecodeError as exc:
        raise breach(name=name, what="its payload is not UTF-8") from exc
    if not text or "\0" in text:
        raise breach(name=name, what=f"{text!r} is not a path")
    return text


def decode_json(name: str, payload: bytes) -> dict[str, Any]:
    """Return the JSON object that is the payload of the frame `name`.

    Raises:
        ProtocolError: It is none.
    """
    try:
        fields = json.loads(payload)
    except ValueError as exc:
        raise breach(name=name, what="its payload is not JSON") from exc
    if not isinstance(fields, dict):
        raise breach(name=name, what="its payload is not a JSON object")
    return fields


def require_integer(name: str, fields: dict[str, Any], key: str, least: int = 0) -> int:
    """Return an integer field of the frame `name`.

    Raises:
        ProtocolError: It is none, or below `least`.
    """
    value = fields.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise breach(name=name, what=f"{key}={value!r}")
    return value
