"""The JSON lines between an algorithm process and its node (docs/lifecycle.md section 5)."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from headrace.framework.failure import Failure

__all__ = [
    "AheadLine",
    "ErrorLine",
    "FailedLine",
    "FromNode",
    "FromProcess",
    "LookupLine",
    "PublishLine",
    "ReportLine",
    "StopJobLine",
    "ValueLine",
    "decode_from_node",
    "decode_from_process",
    "encode_line",
]


class ReportLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="report"):
    """Latest values, and rows since the start of the process.

    Attributes:
        progress: Number of the report, from 1: each is a sign that the process gets on.
    """

    values: dict[str, float] = {}
    rows_in: int = 0
    rows_out: int = 0
    progress: int = 0


class PublishLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="publish"):
    """Make a value known to the processes of this attempt."""

    key: str
    value: str


class LookupLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="lookup"):
    """Ask for a value; the answer carries the same id."""

    id: int
    key: str
    timeout_s: float


class StopJobLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="stop_job"):
    """Ask to end the whole job with success, or to have it drained into a savepoint."""

    reason: str
    with_savepoint: bool = False


class FailedLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="failed"):
    """Say how the process fails, before it exits."""

    failure: Failure


class AheadLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="ahead"):
    """How far a process is that was started ahead of its spec.

    Attributes:
        state: "ready": it waits for its line on stdin; "begun": it has it.
    """

    state: Literal["ready", "begun"]


class ValueLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="value"):
    """Answer of a lookup."""

    id: int
    value: str


class ErrorLine(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """Answer of a lookup that has failed."""

    id: int
    message: str
    is_timeout: bool = False


FromProcess: TypeAlias = (
    ReportLine | PublishLine | LookupLine | StopJobLine | FailedLine | AheadLine
)
FromNode: TypeAlias = ValueLine | ErrorLine

_ENCODER = msgspec.json.Encoder()
_FROM_PROCESS: msgspec.json.Decoder[FromProcess] = msgspec.json.Decoder(FromProcess)
_FROM_NODE: msgspec.json.Decoder[FromNode] = msgspec.json.Decoder(FromNode)


def encode_line(line: FromProcess | FromNode) -> bytes:
    """Return the line, newline included."""
    return _ENCODER.encode(line) + b"\n"


def decode_from_process(line: bytes) -> FromProcess:
    """Decode a line of a process.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _FROM_PROCESS.decode(line)


def decode_from_node(line: bytes) -> FromNode:
    """Decode a line of a node. Raises as `decode_from_process`."""
    return _FROM_NODE.decode(line)
