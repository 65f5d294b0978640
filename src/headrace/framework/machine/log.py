"""The event log: the first facts and every event since, as JSON lines; it replays."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from headrace.framework.machine.events import AnyEvent, Event
from headrace.framework.machine.facts import Job

__all__ = ["decode_log", "encode_event", "encode_job"]

_ENCODER = msgspec.json.Encoder()
_EVENT_DECODER: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)
_JOB_DECODER = msgspec.json.Decoder(Job)


def encode_job(job: Job) -> bytes:
    """Return the first line of a log: the facts before the first event."""
    return _ENCODER.encode(job) + b"\n"


def encode_event(event: Event) -> bytes:
    """Return one further line."""
    return _ENCODER.encode(event) + b"\n"


def decode_log(lines: Iterable[bytes]) -> tuple[Job, list[AnyEvent]]:
    """Return the first facts and the events of a log.

    Raises:
        msgspec.DecodeError: A line is not what `encode_job` or `encode_event` wrote.
    """
    rest = iter(lines)
    job = _JOB_DECODER.decode(next(rest))
    return job, [_EVENT_DECODER.decode(line) for line in rest]
