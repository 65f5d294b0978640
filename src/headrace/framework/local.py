"""A group of function processes without Flink and without a master: for tests and debugging."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import msgspec

from headrace._environ import copy_environment
from headrace.config import TimeoutConfig
from headrace.errors import UserCodeError, WaitTimeoutError
from headrace.framework.link_lines import ReportLine
from headrace.framework.local_role import (
    LocalResult,
    LocalRole,
    build_local_specs,
    require_decider,
)
from headrace.framework.machine.facts import ProcessState
from headrace.framework.master.rendezvous import Rendezvous
from headrace.framework.node.life import LifeEnd, LifePlan, ProcessLife
from headrace.framework.node.port import ReservedPort
from headrace.framework.payload import dump_payload
from headrace.framework.process import ProcessSpec
from headrace.framework.runner import FunctionRunner, RunnerContext

__all__ = ["LocalGroup", "run_local"]


@dataclass(slots=True)
class _Member:
    """What changes while one process runs; owned by the group's loop."""

    spec: ProcessSpec
    is_deciding: bool
    life: ProcessLife | None = None
    latest: ReportLine = field(default_factory=ReportLine)

    @property
    def node(self) -> str:
        return self.spec.node


class LocalGroup:
    """Runs roles in processes that can meet each other through their links.

    A process is started, watched and ended by the same code as in a node. It runs in the
    present working directory and finds the modules that this process finds. The first
    failure ends the others. When the processes of all deciding roles have ended, the rest are
    stopped (TERM, and KILL after `timeouts.stop_grace_s`), and however they end then is
    success. Use it as a context manager: `close` ends every process and removes the files.

    Thread model: one thread, "headrace-local", owns the processes; they die with it, and so
    with this process. The methods may be called from one other thread.

    Args:
        roles: What to run, by the role's name.
        timeouts: Limits on every wait.
        work_dir: Directory for files; a temporary one if it is None.
        checkpoint_dir: What the processes find in `spec.checkpoint_dir`.
        environment: Environment variables of the processes, over those of this process.
        attempt: What the processes find in `spec.attempt`.
        sink: Takes their output, whole lines with the node's name in front, on one thread
            for each process; None writes to `sys.stdout`.

    Raises:
        ConfigError: No role decides when the group ends.
        PlanError: A function cannot be pickled.
    """

    def __init__(
        self,
        roles: Mapping[str, LocalRole],
        *,
        timeouts: TimeoutConfig | None = None,
        work_dir: str | Path | None = None,
        checkpoint_dir: str | None = None,
        environment: Mapping[str, str] | None = None,
        attempt: int = 1,
        sink: Callable[[str], object] | None = None,
    ) -> None:
        self._timeouts = timeouts or TimeoutConfig()
        require_decider(roles)
        self._roles = dict(roles)
        self._payloads = {name: dump_payload(entry=role.entry) for name, role in roles.items()}
        self._work_dir = work_dir
        self._directory: Path | None = None
        self._checkpoint_dir = checkpoint_dir
        self._attempt = attempt
        self._ports: list[ReservedPort] = []
        self._environment = {
            **copy_environment(),
            "PYTHONPATH": os.pathsep.join(str(Path(place).absolute()) for place in sys.path),
            **(environment or {}),
        }
        self._sink = sink or _write_to_stdout
        self._result: Future[list[LocalResult]] = Future()
        self._is_ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._members: list[_Member] = []
        self._rendezvous = Rendezvous(attempt)
        self._thread = threading.Thread(target=self._run, name="headrace-local")

    def start(self) -> None:
        """Start the processes; does not wait for them. Call it once."""
        directory = Path(tempfile.mkdtemp(prefix="headrace-", dir=self._work_dir))
        self._directory = directory
        for name, content in self._payloads.items():
            payload = _payload_path(directory, name)
            payload.touch(mode=0o600)
            payload.write_bytes(content)
        specs = build_local_specs(
            self._roles,
            ports={
                name: tuple(self._reserve_port() for _ in range(role.parallelism))
                for name, role in self._roles.items()
                if role.has_port
            },
            attempt=self._attempt,
            checkpoint_dir=self._checkpoint_dir,
            timeouts=self._timeouts,
        )
        for spec in specs:
            placed = msgspec.structs.replace(
                spec,
                work_dir=str(directory / spec.node),
                payload_path=str(_payload_path(directory, spec.role)),
            )
            is_deciding = self._roles[spec.role].is_deciding
            self._members.append(_Member(placed, is_deciding=is_deciding))
        self._thread.start()
        self._is_ready.wait()

    def wait(self, timeout_s: float | None = None) -> list[LocalResult]:
        """Wait until every process has ended; return their results, role by role.

        Args:
            timeout_s: Longest wait, in seconds; None waits for ever.

        Raises:
            UserCodeError: A process failed: the first that did. All have ended.
            WaitTimeoutError: They have not ended in time; they run on until `close`.
        """
        try:
            return self._result.result(timeout_s)
        except FutureTimeoutError:
            raise WaitTimeoutError(
                waited_for="the processes of a local group to end",
                waited_s=timeout_s or 0.0,
                setting="timeout_s",
            ) from None

    def close(self) -> None:
        """Kill what still runs and remove the files. Safe to repeat; bounded by seconds."""
        try:
            if self._thread.ident is not None:
                self._end_thread()
        finally:  # also if somebody interrupts the wait
            for port in self._ports:
                port.close()
            if self._directory is not None:
                shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> LocalGroup:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _end_thread(self) -> None:
        self._is_ready.wait()
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # closed: every process has ended
                self._loop.call_soon_threadsafe(self._kill)
        self._thread.join()

    def _reserve_port(self) -> int:
        port = ReservedPort()
        self._ports.append(port)
        return port.number

    def _run(self) -> None:
        try:
            results = asyncio.run(self._live())
        except BaseException as exc:  # noqa: BLE001 - handed to whoever waits
            self._result.set_exception(exc)
        else:
            self._result.set_result(results)
        finally:
            self._is_ready.set()

    async def _live(self) -> list[LocalResult]:
        self._loop = asyncio.get_running_loop()
        for member in self._members:
            coordination = _LocalCoordination(member, self._rendezvous, self._stop)
            member.life = ProcessLife(self._plan(member.spec), coordination)
        lives = [asyncio.create_task(self._follow(member)) for member in self._members]
        self._is_ready.set()
        first: UserCodeError | None = None
        ends: dict[str, LifeEnd] = {}
        deciding = {member.node for member in self._members if member.is_deciding}
        for ended in asyncio.as_completed(lives):
            member, end = await ended
            ends[member.node] = end
            if not deciding:
                continue  # stopped, or it would have been
            deciding.discard(member.node)
            if end.failure is not None and first is None:
                first = end.failure.to_error(member.node)
                self._kill()
            elif not deciding:
                self._stop()
        if first is not None:
            raise first
        return [
            LocalResult(
                node=member.node,
                values=member.latest.values,
                rows_in=member.latest.rows_in,
                rows_out=member.latest.rows_out,
                was_stopped=ends[member.node].outcome is ProcessState.STOPPED,
            )
            for member in self._members
        ]

    async def _follow(self, member: _Member) -> tuple[_Member, LifeEnd]:
        assert member.life is not None
        return member, await member.life.run(lambda _: None)

    def _plan(self, spec: ProcessSpec) -> LifePlan:
        context = RunnerContext(spec=spec, python=sys.executable)

        def write(lines: bytes) -> None:
            if lines:
                self._sink(lines.decode("utf-8", "replace"))

        return LifePlan(
            spec=spec,
            command=lambda: replace(FunctionRunner().command(context), cwd=str(Path.cwd())),
            environment={**self._environment, **self._roles[spec.role].environment},
            is_subreaper=False,
            sink=write,
            prefix=f"{spec.node}: ".encode(),
        )

    def _stop(self) -> None:
        for member in self._members:
            if member.life is not None:
                member.life.stop(self._timeouts.stop_grace_s)

    def _kill(self) -> None:
        for member in self._members:
            if member.life is not None:
                member.life.kill()


class _LocalCoordination:
    """The other processes of the group, seen from one; belongs to the group's loop."""

    def __init__(
        self, member: _Member, rendezvous: Rendezvous, stop: Callable[[], None]
    ) -> None:
        self._member = member
        self._rendezvous = rendezvous
        self._stop = stop

    def report(self, line: ReportLine) -> None:
        """Keep the latest values."""
        self._member.latest = line

    def publish(self, key: str, value: str) -> None:
        """Make a value known to the group."""
        self._rendezvous.publish(self._rendezvous.attempt, key, value)

    async def lookup(self, key: str, timeout_s: float) -> str | None:
        """Wait for a value of the group."""
        return await self._rendezvous.lookup(self._rendezvous.attempt, key, timeout_s)

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:  # noqa: ARG002
        """End every process of the group with success; a savepoint is Flink's alone."""
        if not with_savepoint:
            self._stop()


def run_local(
    roles: Mapping[str, LocalRole],
    *,
    timeouts: TimeoutConfig | None = None,
    work_dir: str | Path | None = None,
    checkpoint_dir: str | None = None,
    timeout_s: float | None = None,
) -> list[LocalResult]:
    """Run the roles of a `LocalGroup` and wait for all of them.

    Nothing that they have started is left afterwards, also after an exception.

    Raises:
        UserCodeError: A process failed: the first that did.
        WaitTimeoutError: They have not ended within `timeout_s` seconds; they are killed.
        ConfigError: No role decides when the group ends.
        PlanError: A function cannot be pickled.
    """
    with LocalGroup(
        roles, timeouts=timeouts, work_dir=work_dir, checkpoint_dir=checkpoint_dir
    ) as group:
        return group.wait(timeout_s)


def _payload_path(directory: Path, role: str) -> Path:
    return directory / f"{role}.payload"


def _write_to_stdout(lines: str) -> None:
    sys.stdout.write(lines)
    sys.stdout.flush()
