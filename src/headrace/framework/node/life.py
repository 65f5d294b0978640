"""The life of one algorithm process, from its command to the last trace of it."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL, SIGTERM
from typing import Protocol

from typing_extensions import assert_never

from headrace.errors import HeadraceError, WaitTimeoutError
from headrace.framework.failure import Failure
from headrace.framework.link_lines import (
    AheadLine,
    ErrorLine,
    FailedLine,
    FromProcess,
    LookupLine,
    PublishLine,
    ReportLine,
    StopJobLine,
    ValueLine,
)
from headrace.framework.machine.facts import ProcessState
from headrace.framework.node.ahead import AheadProcess
from headrace.framework.node.algorithm import AlgorithmProcess
from headrace.framework.node.exits import outcome_of_exit
from headrace.framework.node.frozen import frozen_text, wait_until_frozen
from headrace.framework.node.work_dir import (
    link_entries,
    make_work_dir,
    remove_work_dir,
    write_spec,
)
from headrace.framework.process import ProcessSpec
from headrace.framework.runner import RunnerCommand

__all__ = ["Coordination", "LifeEnd", "LifePlan", "ProcessLife"]

_LOG = logging.getLogger(__name__)


class Coordination(Protocol):
    """What the process may ask for through its link. Called on the loop; must not block."""

    def report(self, line: ReportLine) -> None:
        """Keep the latest values."""

    def publish(self, key: str, value: str) -> None:
        """Make a value known to the group."""

    async def lookup(self, key: str, timeout_s: float) -> str | None:
        """Wait for a value; None if it does not come in time.

        Raises:
            HeadraceError: It cannot come.
        """

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        """Ask to end the job with success, or to have it drained into a savepoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LifePlan:
    """What a life needs to know.

    Attributes:
        spec: The facts for the process; its `work_dir` is made, and removed at the end.
        command: Returns the runner's command; may block, may raise.
        environment: The whole environment, the role's variables included.
        is_subreaper: Whether this process is a child subreaper.
        sink: Takes the output, line by line, on a thread.
        prefix: Put before each line of the output.
        archives: Directory whose entries the process finds in its working directory as well;
            None without archives.
        ahead: A process that was started before and waits for this life, which ends it if it
            does not take it; None without. Its directory is that of `spec`, and its command and
            environment are those of `command` but for the variables that `command` adds.
    """

    spec: ProcessSpec
    command: Callable[[], RunnerCommand]
    environment: Mapping[str, str] = field(default_factory=dict)
    is_subreaper: bool
    sink: Callable[[bytes], None]
    prefix: bytes = b""
    archives: Path | None = None
    ahead: AheadProcess | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeEnd:
    """How it has ended; nothing of the process is left.

    Attributes:
        outcome: FINISHED, FAILED or STOPPED.
        failure: How it failed, if it did.
    """

    outcome: ProcessState
    failure: Failure | None = None


class ProcessLife:
    """Runs one algorithm process of one attempt.

    A process that is frozen for longer than `timeouts.heartbeat_timeout_s` is killed.

    Attributes:
        attempt: The attempt.
        number: Which of its lives in that attempt the node's process lives, from 0.

    Thread model: belongs to one asyncio loop. `run` must be awaited to its end, also after
    `stop` and `kill`; it is then bounded by the grace of `stop` plus two seconds.
    """

    def __init__(self, plan: LifePlan, coordination: Coordination) -> None:
        self.attempt = plan.spec.attempt
        self.number = plan.spec.life
        self._plan = plan
        self._coordination = coordination
        self._process: AlgorithmProcess | None = None
        self._told: Failure | None = None
        self._stop = asyncio.Event()
        self._grace_s = 0.0
        self._lookups: set[asyncio.Task[None]] = set()

    def stop(self, grace_s: float) -> None:
        """End the process: TERM, and KILL after `grace_s` seconds. Safe to repeat."""
        if not self._stop.is_set():
            self._grace_s = grace_s
            self._stop.set()

    def kill(self) -> None:
        """End the process at once. Safe to repeat."""
        self._grace_s = 0.0
        self._stop.set()
        if self._process is not None:
            self._process.signal(SIGKILL)

    def reap_orphans(self) -> None:
        """Take the exit status of descendants that have become our children."""
        if self._process is not None:
            self._process.reap_orphans()

    async def run(self, on_started: Callable[[int], None]) -> LifeEnd:
        """Start the process, wait for its end, and remove what it leaves.

        Never raises: what goes wrong is in the result.

        Args:
            on_started: Called with the pid, which is also the process group.
        """
        work_dir = Path(self._plan.spec.work_dir)
        try:
            try:
                process = await self._start(work_dir)
            except Exception as exc:  # noqa: BLE001 - a runner may be the user's
                return LifeEnd(outcome=ProcessState.FAILED, failure=_start_failure(exc))
            if process is None:
                return LifeEnd(outcome=ProcessState.STOPPED)
            self._process = process
            on_started(process.pid)
            return await self._watch(process)
        finally:
            if self._plan.ahead is not None:
                await self._plan.ahead.end()  # it may never have been asked
            await remove_work_dir(work_dir)

    async def _start(self, work_dir: Path) -> AlgorithmProcess | None:
        """Return the started process, or None if it was stopped before."""
        spec = self._plan.spec
        limit_s = spec.timeouts.process_start_timeout_s
        command = asyncio.ensure_future(asyncio.to_thread(self._plan.command))
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait(
                {command, stopped}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
            )
            if self._stop.is_set():
                return None
            if not command.done():
                raise WaitTimeoutError(
                    waited_for="the command of the runner",
                    waited_s=limit_s,
                    setting="timeouts.process_start_timeout_s",
                )
            runner_command = command.result()
        finally:
            command.cancel()
            stopped.cancel()
        if self._plan.ahead is not None:
            process = await self._begin(self._plan.ahead, runner_command)
            if process is not None or self._stop.is_set():
                return process
        make_work_dir(work_dir)
        spec_path = write_spec(spec)
        if self._plan.archives is not None:
            link_entries(self._plan.archives, work_dir)
        return AlgorithmProcess(
            name=spec.node,
            argv=runner_command.argv,
            environment={**self._plan.environment, **runner_command.environment},
            cwd=runner_command.cwd or str(work_dir),
            spec_path=str(spec_path),
            on_line=self._on_line,
            sink=self._plan.sink,
            prefix=self._plan.prefix,
            is_subreaper=self._plan.is_subreaper,
        )

    async def _begin(
        self, ahead: AheadProcess, command: RunnerCommand
    ) -> AlgorithmProcess | None:
        """Return the process that waits for this life; None if it cannot be had any more."""
        spec = self._plan.spec
        begun = asyncio.ensure_future(ahead.begin(spec, command.environment, self._on_line))
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({begun, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not begun.done():
            await ahead.end()
            process = await begun
            if process is not None:  # it had begun in that moment
                await process.clean_up()
            return None
        process = begun.result()
        if process is None:
            return None
        _LOG.info("%s goes on in process %d, which was started ahead", spec.node, process.pid)
        return process

    async def _watch(self, process: AlgorithmProcess) -> LifeEnd:
        timeouts = self._plan.spec.timeouts
        limit_s = timeouts.heartbeat_timeout_s
        exited = asyncio.ensure_future(process.wait_exit())
        stopped = asyncio.ensure_future(self._stop.wait())
        frozen = asyncio.ensure_future(
            wait_until_frozen(process.pid, every_s=timeouts.heartbeat_every_s, limit_s=limit_s)
        )
        await asyncio.wait({exited, stopped, frozen}, return_when=asyncio.FIRST_COMPLETED)
        killed_for = None
        if frozen.done() and not (exited.done() or stopped.done()):
            killed_for = frozen_text(frozen.result(), limit_s)
            process.signal(SIGKILL)
            await asyncio.wait({exited, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        frozen.cancel()
        was_told_to_stop = not exited.done()
        if was_told_to_stop:
            await self._end(process, exited)
        return_code = await process.clean_up()
        for lookup in self._lookups:
            lookup.cancel()
        outcome, failure = outcome_of_exit(
            return_code,
            told=self._told,
            last_lines=process.last_lines,
            was_told_to_stop=was_told_to_stop,
            killed_for=killed_for,
        )
        return LifeEnd(outcome=outcome, failure=failure)

    async def _end(self, process: AlgorithmProcess, exited: asyncio.Future[None]) -> None:
        if self._grace_s > 0:
            process.signal(SIGTERM)
            await asyncio.wait({exited}, timeout=self._grace_s)
        if not exited.done():
            process.signal(SIGKILL)
            await exited

    def _on_line(self, line: FromProcess) -> None:
        match line:
            case ReportLine():
                self._coordination.report(line)
            case PublishLine():
                self._coordination.publish(line.key, line.value)
            case LookupLine():
                task = asyncio.ensure_future(self._answer(line))
                self._lookups.add(task)
                task.add_done_callback(self._lookups.discard)
            case StopJobLine():
                self._coordination.stop_job(line.reason, with_savepoint=line.with_savepoint)
            case FailedLine():
                self._told = line.failure
            case AheadLine():
                pass  # who has started it ahead takes these
            case _:
                assert_never(line)

    async def _answer(self, line: LookupLine) -> None:
        answer: ValueLine | ErrorLine
        try:
            value = await self._coordination.lookup(line.key, line.timeout_s)
        except HeadraceError as exc:
            answer = ErrorLine(id=line.id, message=str(exc))
        else:
            if value is None:
                answer = ErrorLine(id=line.id, message="not published", is_timeout=True)
            else:
                answer = ValueLine(id=line.id, value=value)
        if self._process is not None:
            self._process.send(answer)


def _start_failure(exc: Exception) -> Failure:
    """Return why the process could not be started."""
    is_ours = isinstance(exc, HeadraceError)
    is_plain = is_ours or (isinstance(exc, OSError) and exc.filename is not None)
    return Failure(
        kind="environment",
        message=f"The process could not be started: {exc if is_plain else repr(exc)}",
        traceback=None
        if is_ours
        else "".join(traceback.format_exception(type(exc), exc, exc.__traceback__)),
        is_restartable=isinstance(exc, WaitTimeoutError),
    )
