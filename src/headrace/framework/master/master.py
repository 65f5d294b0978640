"""The master: owns the state machine, feeds it events and carries out its commands."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Callable

from typing_extensions import assert_never

from headrace.config import TimeoutConfig
from headrace.errors import ProtocolError
from headrace.framework.clock import Clock
from headrace.framework.jvm_lines import FailLine, FinishLine, StatusLine, ToJvm
from headrace.framework.machine import (
    ArmDeadline,
    Command,
    DeadlineName,
    Event,
    FailJob,
    FinishJob,
    GatherDeadlineReached,
    Job,
    JobMachine,
    NodeLost,
    NodeRegistered,
    RecoverDeadlineReached,
    StartProcesses,
    StopDeadlineReached,
    StopProcesses,
)
from headrace.framework.master.directives import Directives
from headrace.framework.master.heartbeats import Heartbeats
from headrace.framework.master.observation import Observation, build_status
from headrace.framework.master.rendezvous import Rendezvous
from headrace.framework.messages import StartProcess, StopProcess
from headrace.framework.status import JobStatus

__all__ = ["Master"]

_LOG = logging.getLogger(__name__)
_STATUS_EVERY_S = 0.5
_STALL_S = 1.0


class Master:
    """Decides by the state machine and does what it says.

    Thread model: everything runs on one asyncio loop. `post` is the only road to the
    machine; an event that is posted while another is handled waits for its turn.

    Attributes:
        directives: What each node is to do.
        rendezvous: Values of the present attempt.

    Args:
        machine: The machine with its first facts.
        timeouts: Limits on every wait.
        clock: For heartbeats.
        send: Takes the lines to the JVM; must not block.
        record: Takes every event before it is handled (the event log).
    """

    def __init__(
        self,
        *,
        machine: JobMachine,
        timeouts: TimeoutConfig,
        clock: Clock,
        send: Callable[[ToJvm], None],
        record: Callable[[Event], None] = lambda _: None,
    ) -> None:
        self.directives = Directives()
        self.rendezvous = Rendezvous(machine.job.attempt)
        self._machine = machine
        self._timeouts = timeouts
        self._clock = clock
        self._send = send
        self._record = record
        self._heartbeats = Heartbeats(timeouts.heartbeat_timeout_s)
        self._observed: dict[str, Observation] = {}
        self._savepoint_wish: str | None = None
        self._events: deque[tuple[Event, Observation | None]] = deque()
        self._is_handling = False
        self._is_broken = False
        self._deadlines: dict[tuple[DeadlineName, str | None], asyncio.TimerHandle] = {}
        self._status_due: asyncio.TimerHandle | None = None

    @property
    def job(self) -> Job:
        """The present facts."""
        return self._machine.job

    @property
    def status(self) -> JobStatus:
        """How the cluster stands."""
        return build_status(self.job, self._observed, self._savepoint_wish)

    @property
    def heartbeat_every_s(self) -> float:
        """Pause between a node's heartbeats: longer in a large cluster, far below the limit."""
        stretched = min(self._timeouts.heartbeat_timeout_s / 4, (self.job.expected or 0) / 400)
        return max(self._timeouts.heartbeat_every_s, stretched)

    def post(self, event: Event, seen: Observation | None = None) -> None:
        """Hand an event to the machine and carry out what it decides. Never blocks.

        Args:
            event: What has happened.
            seen: What a node tells about itself with its registration; kept if the machine
                takes the node.
        """
        self._events.append((event, seen))
        if self._is_handling:
            return
        self._is_handling = True
        try:
            while self._events:
                self._handle(*self._events.popleft())
        finally:
            self._is_handling = False

    def note_sign_of_life(self, node: str, instance: str) -> bool:
        """Note that this node process lives; return False if it is not registered."""
        if not self.job.is_registered(node, instance):
            return False
        if not self.job.state.is_terminal:
            self._heartbeats.beat(node, self._clock.monotonic())
        return True

    def observed(self, node: str) -> Observation | None:
        """Return what a node told about itself last."""
        return self._observed.get(node)

    def observe(self, node: str, seen: Observation) -> None:
        """Keep what a node told about itself, for the status."""
        if self._observed.get(node) != seen:
            self._observed[node] = seen
            self._report_status_soon()

    def wish_savepoint(self, reason: str) -> None:
        """Tell with the status that the job is to be drained into a savepoint."""
        if self._savepoint_wish is None:
            _LOG.info("%s; with a savepoint, by whoever waits for the job", reason)
            self._savepoint_wish = reason
            self._report_status_soon()

    async def watch(self) -> None:
        """Notice silent nodes; runs until it is cancelled."""
        while True:
            planned_s = self._heartbeats.next_check(self._clock.monotonic()) + 0.001
            before = self._clock.monotonic()
            await asyncio.sleep(planned_s)
            stall_s = self._clock.monotonic() - before - planned_s
            if stall_s > _STALL_S:
                _LOG.warning("the master did not run for %.1f s; nodes get that time", stall_s)
                self._heartbeats.forgive(stall_s)
            self._take_lost()

    def close(self) -> None:
        """End every stream and timer."""
        self.directives.close()
        timers = [*self._deadlines.values(), self._status_due]
        for timer in timers:
            if timer is not None:
                timer.cancel()

    def _take_lost(self) -> None:
        for node, silent_s in self._heartbeats.take_lost(self._clock.monotonic()):
            facts = self.job.nodes.get(node)
            if facts is not None:
                self.post(
                    NodeLost(
                        attempt=self.job.attempt,
                        node=node,
                        instance=facts.instance,
                        silent_s=silent_s,
                        limit_s=self._heartbeats.limit_s,
                    )
                )

    def _handle(self, event: Event, seen: Observation | None) -> None:
        if self._is_broken:
            return
        before = self.job
        try:
            self._record(event)
            commands = self._machine.handle(event)
        except Exception as exc:  # noqa: BLE001 - a handler may be the user's
            _LOG.exception("the state machine failed")
            self._is_broken = True
            text = f"The state machine failed at {event}:\n{traceback.format_exc()}"
            # A transition that must not be can come from a rare order of events: try again.
            self._send(FailLine(message=text, is_restartable=isinstance(exc, ProtocolError)))
            return
        after = self.job
        if isinstance(event, NodeRegistered) and not before.state.is_terminal:
            self._note_registration(event, seen, before)
        if len(after.nodes) < len(before.nodes):
            for node in before.nodes.keys() - after.nodes.keys():
                self.directives.forget(node)  # what it has not heard yet is void
        if after is before and not commands:
            return
        if after.attempt != before.attempt:
            self._savepoint_wish = None  # it was of the attempt that is over
        self.rendezvous.open_attempt(after.attempt)
        if (after.state, after.attempt) != (before.state, before.attempt):
            _LOG.info("attempt=%d %s", after.attempt, self._transition(commands))
            self._report_status()
        else:
            self._report_status_soon()
        for command in commands:
            self._execute(command)

    def _note_registration(
        self, event: NodeRegistered, seen: Observation | None, before: Job
    ) -> None:
        """Take what a node told, for the status of the transition; not of a refused one."""
        node, instance = event.node, event.instance
        facts, known = self.job.nodes.get(node), before.nodes.get(node)
        if facts is None or facts.instance != instance:
            return
        if known is not None and known.instance != instance:
            self.directives.forget(node)
        if seen is not None:
            self.observe(node, seen)

    def _transition(self, commands: list[Command]) -> str:
        names = ", ".join(type(command).__name__ for command in commands)
        return f"{self._machine.history[-1]} commands=[{names}]"

    def _execute(self, command: Command) -> None:
        match command:
            case StartProcesses():
                start = StartProcess(
                    attempt=command.attempt,
                    life=command.life,
                    cluster=dict(command.cluster),
                    ports=dict(command.ports),
                )
                self.directives.set(command.nodes, start)
                for node in command.nodes:
                    self._heartbeats.beat(node, self._clock.monotonic())
            case StopProcesses():
                stop = StopProcess(
                    attempt=command.attempt,
                    life=command.life,
                    ending_reason=command.ending_reason,
                )
                self.directives.set(command.nodes, stop)
            case ArmDeadline():
                self._arm(command)
            case FailJob():
                self._send(
                    FailLine(message=command.message, is_restartable=command.is_restartable)
                )
            case FinishJob():
                self._send(FinishLine(reason=command.reason))
            case _:
                assert_never(command)

    def _arm(self, command: ArmDeadline) -> None:
        limit_s: float = getattr(self._timeouts, command.setting)
        key = (command.name, command.node)
        former = self._deadlines.pop(key, None)
        if former is not None:
            former.cancel()
        event = _deadline_event(command, limit_s)
        loop = asyncio.get_running_loop()
        self._deadlines[key] = loop.call_later(limit_s, self.post, event)

    def _report_status(self) -> None:
        if self._status_due is not None:
            self._status_due.cancel()
            self._status_due = None
        self._send(StatusLine(status=self.status))

    def _report_status_soon(self) -> None:
        if self._status_due is None:
            loop = asyncio.get_running_loop()
            self._status_due = loop.call_later(self._status_every_s, self._report_status)

    @property
    def _status_every_s(self) -> float:
        return max(_STATUS_EVERY_S, len(self._observed) / 200)


def _deadline_event(command: ArmDeadline, limit_s: float) -> Event:
    match command.name:
        case DeadlineName.GATHER:
            return GatherDeadlineReached(attempt=command.attempt, limit_s=limit_s)
        case DeadlineName.RECOVER:
            return RecoverDeadlineReached(
                attempt=command.attempt,
                limit_s=limit_s,
                setting=command.setting,
                node=command.node,
            )
        case DeadlineName.STOP:
            return StopDeadlineReached(attempt=command.attempt, limit_s=limit_s)
        case _:
            assert_never(command.name)
