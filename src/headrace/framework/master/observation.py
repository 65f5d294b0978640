"""What nodes tell about themselves between events, and the status made of it."""

from __future__ import annotations

import msgspec

from headrace.framework.machine import Job, ProcessState
from headrace.framework.status import JobStatus, NodeStatus

__all__ = ["Observation", "build_status"]

_SHOWN_NODES = 10
_STATES = {
    ProcessState.NONE: "registered",
    ProcessState.RUNNING: "running",
    ProcessState.FINISHED: "finished",
    ProcessState.FAILED: "failed",
    ProcessState.STOPPED: "stopped",
}


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What one node has told about itself, with the values of its latest heartbeat.

    Attributes:
        host: Where it runs.
        address: "host:port" for a node with a port.
        url: What a person can open there, if there is anything.
        rows_in: Rows that its process has taken.
        rows_out: Rows that it has emitted.
        progress: Grows while the process gets on.
        report: Latest values of `ctx.report`.
    """

    host: str
    address: str | None = None
    url: str | None = None
    rows_in: int = 0
    rows_out: int = 0
    progress: int = 0
    report: dict[str, float] = {}


def build_status(
    job: Job, observed: dict[str, Observation], savepoint_wish: str | None = None
) -> JobStatus:
    """Return the status of the job. Pure."""
    nodes = {}
    for name, seen in observed.items():
        facts = job.nodes.get(name)
        nodes[name] = NodeStatus(
            state="lost" if facts is None or name in job.lost else _STATES[facts.process],
            host=seen.host,
            address=seen.address,
            url=seen.url,
            rows_in=seen.rows_in,
            rows_out=seen.rows_out,
            progress=seen.progress,
            report=seen.report,
            attempt=job.attempt,
            life=0 if facts is None else facts.life,
        )
    return JobStatus(
        state=job.state.value,
        attempt=job.attempt,
        restarts=job.restarts,
        registered=len(job.nodes),
        expected=job.expected,
        missing=tuple([*job.missing, *sorted(job.lost & job.nodes.keys())][:_SHOWN_NODES]),
        reason=job.reason,
        savepoint_wish=savepoint_wish,
        nodes=nodes,
    )
