"""Turns calls of nodes into events."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec

from headrace.framework.address import join_address
from headrace.framework.failure import Failure
from headrace.framework.machine import (
    NodeRegistered,
    ProcessEvent,
    ProcessFailed,
    ProcessFinished,
    ProcessState,
    ProcessStopped,
    StopRequested,
)
from headrace.framework.master.master import Master
from headrace.framework.master.observation import Observation
from headrace.framework.messages import (
    Ack,
    Attend,
    Beat,
    Lookup,
    LookupReply,
    NodeRequest,
    Publish,
    Register,
    RegisterReply,
    ReportEnd,
    StopJob,
)
from headrace.framework.rpc.protocol import StaleAttemptError, UnknownNodeError

__all__ = ["NodeService"]

_LOOKUP_S = 60.0
"""Longest wait of one call; a node asks again until its own deadline."""


class NodeService:
    """The calls of nodes, fenced by attempt and node process.

    Thread model: called on the master's loop. A method posts an event and answers; it decides
    nothing and never blocks.
    """

    def __init__(self, master: Master) -> None:
        self._master = master

    async def register(self, request: Register) -> RegisterReply:
        """Accept a node; sending it twice is harmless.

        Raises:
            StaleAttemptError: The node knows an older attempt only.
        """
        job = self._master.job
        if request.attempt < job.attempt:
            raise StaleAttemptError(job.attempt)
        self._master.post(
            NodeRegistered(
                attempt=job.attempt,
                node=request.node,
                instance=request.instance,
                role=request.role,
                index=request.index,
                parallelism=request.parallelism,
                host=request.host,
                port=request.port,
                process=request.process,
                process_attempt=request.process_attempt,
                process_life=request.process_life,
                failure=request.failure,
                ending_reason=request.ending_reason,
            ),
            _described(request),
        )
        self._master.note_sign_of_life(request.node, request.instance)
        return RegisterReply(
            attempt=self._master.job.attempt, heartbeat_every_s=self._master.heartbeat_every_s
        )

    def attend(self, request: Attend) -> AsyncIterator[bytes]:
        """Yield the node's directives until a newer stream of the node is opened."""
        self._require_known(request)
        return self._master.directives.follow(request.node)

    def beat(self, request: Beat) -> None:
        """Note a sign of life, of any attempt.

        Raises:
            UnknownNodeError: The node must register first.
        """
        self._require_known(request)
        self._observe(request)

    async def report_end(self, request: ReportEnd) -> Ack:
        """Note the end of a process; sending it twice is harmless.

        Raises:
            StaleAttemptError: The attempt is over.
            UnknownNodeError: The node must register first.
        """
        self._require_known(request)
        self._require_present(request)
        self._observe(request)
        self._master.post(_end_of(request))
        return Ack()

    async def publish(self, request: Publish) -> Ack:
        """Keep a value. Raises as `report_end`."""
        self._require_known(request)
        self._master.rendezvous.publish(request.attempt, request.key, request.value)
        return Ack()

    async def lookup(self, request: Lookup) -> LookupReply:
        """Wait for a value. Raises as `report_end`, also when the attempt ends meanwhile."""
        self._require_known(request)
        timeout_s = min(request.timeout_s, _LOOKUP_S)
        value = await self._master.rendezvous.lookup(request.attempt, request.key, timeout_s)
        return LookupReply(value=value)

    async def stop_job(self, request: StopJob) -> Ack:
        """End the job, or note the wish for a savepoint. Raises as `report_end`."""
        self._require_known(request)
        self._require_present(request)
        reason = f"{request.node} asked to stop: {request.reason}"
        if request.with_savepoint:
            self._master.wish_savepoint(reason)
            return Ack()
        self._master.post(StopRequested(attempt=request.attempt, reason=reason))
        return Ack()

    def _observe(self, request: Beat | ReportEnd) -> None:
        former = self._master.observed(request.node)
        if former is None:
            former = Observation(host=self._master.job.nodes[request.node].host)
        self._master.observe(request.node, _with_values(former, request))

    def _require_known(self, request: NodeRequest) -> None:
        if not self._master.note_sign_of_life(request.node, request.instance):
            msg = f"Node process {request.node} ({request.instance}) is not registered"
            raise UnknownNodeError(msg)

    def _require_present(self, request: NodeRequest) -> None:
        if request.attempt != self._master.job.attempt:
            raise StaleAttemptError(self._master.job.attempt)


def _end_of(request: ReportEnd) -> ProcessEvent:
    about: dict[str, Any] = {
        "attempt": request.attempt,
        "life": request.life,
        "node": request.node,
        "instance": request.instance,
    }
    match request.outcome:
        case ProcessState.FINISHED:
            return ProcessFinished(**about)
        case ProcessState.FAILED:
            failure = request.failure or Failure(kind="node", message="no reason given")
            return ProcessFailed(**about, failure=failure)
        case _:
            return ProcessStopped(**about)


def _described(request: Register) -> Observation:
    """Return a node as it describes itself."""
    address = None if request.port is None else join_address(request.host, request.port)
    is_url = address is not None and request.url_scheme is not None
    seen = Observation(
        host=request.host,
        address=address,
        url=f"{request.url_scheme}://{address}" if is_url else None,
    )
    return _with_values(seen, request)


def _with_values(seen: Observation, request: Register | Beat | ReportEnd) -> Observation:
    return msgspec.structs.replace(
        seen,
        rows_in=request.rows_in,
        rows_out=request.rows_out,
        progress=request.progress,
        report=request.report,
    )
