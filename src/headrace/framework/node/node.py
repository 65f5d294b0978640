"""The node: starts and ends the algorithm process as the JVM and the master say."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from typing import Literal

from typing_extensions import assert_never

from headrace.errors import HeadraceError, ProtocolError
from headrace.framework.clock import Clock
from headrace.framework.failure import Failure
from headrace.framework.jvm import JvmLink
from headrace.framework.jvm_lines import (
    FailLine,
    MasterAddress,
    MasterLine,
    MasterUnreachableLine,
    NodeReportLine,
    ProcessEndedLine,
    ProcessStartedLine,
    StartLine,
    StopLine,
)
from headrace.framework.link_lines import ReportLine
from headrace.framework.machine.facts import ProcessState
from headrace.framework.messages import (
    Beat,
    Directive,
    Register,
    ReportEnd,
    StartProcess,
    StopProcess,
)
from headrace.framework.node.ahead import AheadProcess
from headrace.framework.node.attendance import Attendance
from headrace.framework.node.coordination import LoneCoordination, MasterCoordination
from headrace.framework.node.life import Coordination, LifeEnd, ProcessLife
from headrace.framework.node.life_planner import LifePlanner
from headrace.framework.node.port import ReservedPort
from headrace.framework.rpc.client import MasterClient
from headrace.framework.rpc.tls import take_identity
from headrace.framework.spec import NodeSpec

__all__ = ["Node"]

_LOG = logging.getLogger(__name__)
_REPORT_EVERY_S = 0.2
_CALL_S = 5.0
_END_S = 1.6
_OUTCOMES: dict[ProcessState, Literal["finished", "failed", "stopped"]] = {
    ProcessState.FINISHED: "finished",
    ProcessState.FAILED: "failed",
    ProcessState.STOPPED: "stopped",
}


class Node:
    """One subtask's node.

    Thread model: everything runs on one asyncio loop; at most one life of an algorithm
    process at a time. With a master, the master decides when a process starts and what its
    end means; without one, the process starts at once, and its failure fails the operator.

    Args:
        start: Who the node is.
        spec: What its role runs.
        jvm: The line to the JVM.
        clock: For the search for a lost master.
        ahead: A process that waits for the first life; owned by the node from now on.
    """

    def __init__(
        self,
        start: StartLine,
        spec: NodeSpec,
        jvm: JvmLink,
        clock: Clock,
        ahead: AheadProcess | None = None,
    ) -> None:
        self.name = f"{start.role}-{start.index}"
        self._start = start
        self._spec = spec
        self._jvm = jvm
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._instance = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._attendance = Attendance(
            self, timeouts=spec.timeouts, clock=clock, identity=take_identity(start.tls)
        )
        self._port = ReservedPort() if spec.has_port else None
        self._ahead = ahead
        self._planner = LifePlanner(start, spec, self._port_number, ahead)
        self._attempt = start.attempt
        self._life: ProcessLife | None = None
        self._living: asyncio.Task[None] | None = None
        self._wanted: StartProcess | None = None
        self._stopped = (0, 0)
        self._ending_reason: str | None = None
        self._is_stopping = False
        self._process = ProcessState.NONE
        self._process_attempt: int | None = None
        self._process_life = 0
        self._failure: Failure | None = None
        self._latest = ReportLine()
        self._report_due: asyncio.TimerHandle | None = None

    async def run(self) -> int:
        """Serve until the JVM says stop or is gone; return the exit code.

        Nothing that the node has started is left afterwards.
        """
        listening = asyncio.create_task(self._listen(), name="jvm")
        master = self._start.master
        if master is None:
            self._begin(StartProcess(attempt=self._start.deployment + 1, cluster={}))
        elif isinstance(master, MasterAddress):
            self._attend(master)
        try:
            return await self._exit
        finally:
            listening.cancel()
            if self._life is not None:
                self._life.kill()
            ends = {asyncio.create_task(self._attendance.close(), name="goodbye")}
            if self._living is not None:
                ends.add(self._living)
            if self._ahead is not None:
                ends.add(asyncio.create_task(self._ahead.end(), name="ahead"))
            await asyncio.wait(ends, timeout=_END_S)
            if self._port is not None:
                self._port.close()
            self._planner.close()

    def end(self, exit_code: int) -> None:
        """Kill the algorithm process and end. Safe to repeat."""
        if not self._exit.done():
            self._exit.set_result(exit_code)

    def reap_orphans(self) -> None:
        """Take the exit status of descendants that have become children of this node."""
        if self._life is not None:
            self._life.reap_orphans()

    @property
    def _port_number(self) -> int | None:
        return None if self._port is None else self._port.number

    # What the attendance asks and tells.

    def registration(self) -> Register:
        """Return the node's present state of itself."""
        return Register(
            node=self.name,
            instance=self._instance,
            attempt=self._attempt,
            role=self._start.role,
            index=self._start.index,
            parallelism=self._start.parallelism,
            host=self._start.host,
            port=self._port_number,
            url_scheme=self._spec.url_scheme,
            process=self._process,
            process_attempt=self._process_attempt,
            process_life=self._process_life,
            failure=self._failure,
            ending_reason=self._ending_reason,
            rows_in=self._latest.rows_in,
            rows_out=self._latest.rows_out,
            progress=self._latest.progress,
            report=self._latest.values,
        )

    def heartbeat(self) -> Beat:
        """Return the latest values of the process."""
        return Beat(
            node=self.name,
            instance=self._instance,
            attempt=self._attempt,
            rows_in=self._latest.rows_in,
            rows_out=self._latest.rows_out,
            progress=self._latest.progress,
            report=self._latest.values,
        )

    def on_attempt(self, attempt: int) -> None:
        """Note the master's attempt."""
        self._attempt = max(self._attempt, attempt)

    def on_directive(self, directive: Directive) -> None:
        """Do what the master says; repeating changes nothing."""
        self.on_attempt(directive.attempt)
        match directive:
            case StartProcess():
                self._on_start(directive)
            case StopProcess():
                self._on_stop(directive)
            case _:
                assert_never(directive)

    def on_no_contact(self) -> None:
        """Ask the JVM for the address of a newer master."""
        self._jvm.send(MasterUnreachableLine())

    def on_master_lost(self, error: HeadraceError) -> None:
        """Fail: without a master nobody would notice the end."""
        self._jvm.send(FailLine(message=str(error), is_restartable=True))
        self.end(1)

    # What the JVM says.

    async def _listen(self) -> None:
        try:
            while True:
                line = await self._jvm.receive()
                match line:
                    case None:
                        _LOG.warning("the JVM is gone: %s ends with its process", self.name)
                        return
                    case MasterLine():
                        self._attend(line)
                    case StopLine():
                        self._stop(line.reason)
                    case _:
                        msg = "A node cannot take a second first line"
                        raise ProtocolError(msg)  # noqa: TRY301
        except ProtocolError as exc:
            self._jvm.send(FailLine(message=str(exc), is_restartable=False))
            self.end(1)
        finally:
            self.end(0)

    def _attend(self, master: MasterAddress) -> None:
        self.on_attempt(master.attempt)
        self._attendance.connect(master)

    def _stop(self, reason: str) -> None:
        _LOG.info("%s is told to stop: %s", self.name, reason)
        self._is_stopping = True
        self._wanted = None
        if self._life is None:
            self.end(0)
        else:
            self._life.stop(self._spec.timeouts.stop_grace_s)

    # The life of the process.

    @property
    def _reached(self) -> tuple[int, int]:
        """Attempt and life of the latest process, or of a stop that came before it."""
        return self._process_attempt or 0, self._process_life

    def _on_start(self, directive: StartProcess) -> None:
        if self._reached >= (directive.attempt, directive.life) or self._is_stopping:
            return
        if self._life is None:
            self._begin(directive)
        else:
            self._wanted = directive
            self._life.stop(self._spec.timeouts.stop_grace_s)

    def _on_stop(self, directive: StopProcess) -> None:
        self._wanted = None
        self._ending_reason = directive.ending_reason
        if (self._process_attempt or 0) > directive.attempt:
            return
        self._stopped = (directive.attempt, directive.life)
        if self._life is not None:
            self._life.stop(self._spec.timeouts.stop_grace_s)
        else:
            if self._reached < self._stopped:
                self._process = ProcessState.STOPPED
                self._process_attempt, self._process_life = self._stopped
                self._failure = None
            self._report_end()

    def _begin(self, directive: StartProcess) -> None:
        attempt = directive.attempt
        self._wanted = None
        self._process = ProcessState.RUNNING
        self._process_attempt, self._process_life = attempt, directive.life
        self._failure = None
        self._latest = ReportLine()
        self._attendance.forget_told()
        coordination: Coordination
        if self._start.master is None:
            coordination = LoneCoordination(self._on_report)
        else:
            coordination = MasterCoordination(
                self._attendance,
                node=self.name,
                instance=self._instance,
                attempt=attempt,
                on_report=self._on_report,
            )
        self._life = ProcessLife(self._planner.plan(directive), coordination)
        self._living = asyncio.create_task(self._live(self._life), name=f"life-{attempt}")

    async def _live(self, life: ProcessLife) -> None:
        def on_started(pid: int) -> None:
            at = (life.attempt, life.number)
            _LOG.info("%s runs process %d, attempt %d, life %d", self.name, pid, *at)
            self._jvm.send(ProcessStartedLine(pid=pid, attempt=life.attempt, life=life.number))

        try:
            end = await life.run(on_started)
        except Exception as exc:  # noqa: BLE001 - a defect must not look like a long run
            _LOG.exception("%s cannot answer for its process", self.name)
            failure = Failure(kind="node", message=f"Node {self.name} failed: {exc!r}")
            end = LifeEnd(outcome=ProcessState.FAILED, failure=failure)
        self._on_life_end(life, end)

    def _on_life_end(self, life: ProcessLife, end: LifeEnd) -> None:
        self._life = None
        self._process = end.outcome
        self._failure = end.failure
        if end.outcome is ProcessState.STOPPED:
            latest = max((life.attempt, life.number), self._stopped)
            self._process_attempt, self._process_life = latest
        self._send_report()
        self._tell_jvm(life, end)
        if self._is_stopping:
            self.end(0)
        elif self._wanted is not None:
            self._begin(self._wanted)
        elif self._start.master is not None:
            self._report_end()
        elif end.failure is not None:
            failure = end.failure
            self._jvm.send(
                FailLine(
                    message=failure.describe(self.name), is_restartable=failure.is_restartable
                )
            )

    def _tell_jvm(self, life: ProcessLife, end: LifeEnd) -> None:
        text = None if end.failure is None else end.failure.describe(self.name)
        line = ProcessEndedLine(
            attempt=life.attempt,
            life=life.number,
            outcome=_OUTCOMES[end.outcome],
            failure=end.failure,
            text=text,
        )
        at = (life.attempt, life.number)
        _LOG.info("%s: process of attempt %d, life %d %s", self.name, *at, line.outcome)
        if end.failure is not None and end.failure.traceback is not None:
            _LOG.error("%s\n%s", end.failure.message, end.failure.traceback)
        self._jvm.send(line)

    def _report_end(self) -> None:
        assert self._process_attempt is not None
        request = ReportEnd(
            node=self.name,
            instance=self._instance,
            attempt=self._process_attempt,
            life=self._process_life,
            outcome=self._process,
            failure=self._failure,
            rows_in=self._latest.rows_in,
            rows_out=self._latest.rows_out,
            progress=self._latest.progress,
            report=self._latest.values,
        )

        async def deliver(client: MasterClient) -> None:
            await client.report_end(request, timeout_s=_CALL_S)

        self._attendance.deliver(deliver)

    def _on_report(self, line: ReportLine) -> None:
        self._latest = line
        if self._report_due is None:
            self._report_due = self._loop.call_later(_REPORT_EVERY_S, self._send_report)

    def _send_report(self) -> None:
        if self._report_due is not None:
            self._report_due.cancel()
            self._report_due = None
            if self._latest.values:
                self._jvm.send(NodeReportLine(values=self._latest.values))
