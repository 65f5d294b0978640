"""A node before its start line: it has a process ready for it (ADR 0120)."""

from __future__ import annotations

import asyncio
import logging
import signal
from pathlib import Path

from headrace.framework.jvm import JvmLink
from headrace.framework.jvm_lines import FromJvm, PrepareLine, SpareLine
from headrace.framework.node.ahead import AheadProcess, AheadState
from headrace.framework.node.life_planner import write_to_log
from headrace.framework.spec import read_node_spec

__all__ = ["SpareNode"]

_LOG = logging.getLogger(__name__)
_DIRECTORY = "process-ahead"


class SpareNode:
    """Waits for the line that says which node this is.

    A process is started ahead where the runner is the shipped "function"; if that fails, the
    JVM is told, and the node does without: the process of its first life is started as that of
    every other.

    Thread model: one asyncio loop. `close` must be awaited.

    Args:
        prepare: What is known of the node.
        jvm: The line to the JVM.
    """

    def __init__(self, prepare: PrepareLine, jvm: JvmLink) -> None:
        self._jvm = jvm
        self._ended = asyncio.Event()
        self._ahead: AheadProcess | None = None
        spec = read_node_spec(prepare.spec_path)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._ended.set)
        loop.add_signal_handler(signal.SIGCHLD, self._reap_orphans)
        if spec.runner == "function":
            try:
                self._ahead = AheadProcess(
                    role=prepare.role,
                    spec=spec,
                    work_dir=Path(prepare.work_dir) / _DIRECTORY,
                    payload_path=prepare.payload_path,
                    sink=write_to_log,
                    on_state=self._tell,
                    is_subreaper=True,
                )
            except (OSError, RuntimeError) as exc:  # no memory, process number or thread
                _LOG.warning("no process could be started ahead: %s", exc)
        if self._ahead is None:
            self._tell("ended", None)  # a spare that says nothing would be waited for

    async def wait(self) -> FromJvm | None:
        """Return the next line of the JVM; None when it is gone, or has sent SIGTERM."""
        line = asyncio.ensure_future(self._jvm.receive())
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait({line, ended}, return_when=asyncio.FIRST_COMPLETED)
            return await line if line.done() else None
        finally:
            line.cancel()
            ended.cancel()
            await asyncio.wait({line, ended})  # nobody reads any more when this returns

    def take(self) -> AheadProcess | None:
        """Return the process, which is the caller's from now on."""
        ahead, self._ahead = self._ahead, None
        return ahead

    async def close(self) -> None:
        """End the process, unless it was taken. Bounded by seconds."""
        if self._ahead is not None:
            await self._ahead.end()

    def _tell(self, state: AheadState, pid: int | None) -> None:
        self._jvm.send(SpareLine(state=state, pid=pid))

    def _reap_orphans(self) -> None:
        if self._ahead is not None:
            self._ahead.reap_orphans()
