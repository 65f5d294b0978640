"""An algorithm process that is started before anybody knows whose it will be (ADR 0120)."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from signal import SIGKILL
from typing import Literal

from headrace._environ import ARCHIVES, environment_value
from headrace.framework.link_lines import AheadLine, FromProcess
from headrace.framework.node.algorithm import AlgorithmProcess
from headrace.framework.node.family import is_frozen
from headrace.framework.node.work_dir import (
    link_entries,
    make_work_dir,
    remove_work_dir,
    spec_path_in,
    write_spec,
)
from headrace.framework.process import ProcessSpec
from headrace.framework.rpc.library import inherited_environment
from headrace.framework.runner.ahead import encode_go
from headrace.framework.spec import NodeSpec

__all__ = ["AheadProcess", "AheadState"]

_LOG = logging.getLogger(__name__)
_ANSWER_S = 2.0

AheadState = Literal["loading", "ready", "ended"]


class AheadProcess:
    """A process that loads the entry and then waits for its line.

    It has `timeouts.process_start_timeout_s` to load the entry, and is killed then.

    Thread model: belongs to one asyncio loop, on whose thread it must be made: the process is
    killed when that thread ends. `begin` hands the process over; who does not call it, or gets
    None from it, calls `end`.

    Args:
        role: Name of the role.
        spec: What the role runs; its runner is the shipped "function".
        work_dir: Directory of this process, which is made.
        payload_path: File with the entry.
        sink: Takes the output, line by line, on a thread.
        on_state: Told of "loading", with the pid, then of "ready" and of "ended". Not told once
            the process was handed over.
        is_subreaper: Whether this process is a child subreaper: then every descendant of it is
            killed behind the process.

    Attributes:
        work_dir: Directory of the process; its spec must name it.
        pid: The process.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        *,
        role: str,
        spec: NodeSpec,
        work_dir: Path,
        payload_path: str,
        sink: Callable[[bytes], None],
        on_state: Callable[[AheadState, int], None],
        is_subreaper: bool,
    ) -> None:
        self.work_dir = work_dir
        self._role = role
        self._on_state = on_state
        self._listener: Callable[[FromProcess], None] | None = None
        self._ready = asyncio.Event()
        self._begun = asyncio.Event()
        make_work_dir(work_dir)
        archives = environment_value(ARCHIVES)
        if archives is not None:
            link_entries(Path(archives), work_dir)
        self._process: AlgorithmProcess | None = AlgorithmProcess(
            name=f"{role}-spare",
            argv=(
                sys.executable,
                *("-u", "-m", "headrace.framework.runner"),
                *("--ahead", payload_path),
            ),
            environment={**inherited_environment(), **spec.environment},
            cwd=str(work_dir),
            spec_path=str(spec_path_in(work_dir)),
            on_line=self._on_line,
            sink=sink,
            is_subreaper=is_subreaper,
            has_stdin=True,
        )
        self.pid = self._process.pid
        self._on_state("loading", self.pid)
        self._load_limit_s = spec.timeouts.process_start_timeout_s
        self._loading = asyncio.get_running_loop().call_later(
            self._load_limit_s, self._give_up, self._process
        )
        self._watching = asyncio.create_task(self._watch(self._process), name="spare")

    async def begin(
        self,
        spec: ProcessSpec,
        environment: Mapping[str, str],
        on_line: Callable[[FromProcess], None],
    ) -> AlgorithmProcess | None:
        """Let the process go on, and hand it over.

        It may still load the entry, for what is left of the limit.

        Args:
            spec: The facts for the process; its `work_dir` is that of this object.
            environment: Variables that it sets first.
            on_line: Takes what it says from now on.

        Returns:
            The process; None if it cannot be had: it has ended, is frozen, or has not answered
            within two seconds. It is killed then, and nothing of it is left. A process that has
            begun is always returned, whatever has become of it: its entry must not run twice.
        """
        process = self._process
        if process is None or not await self._answers(process, spec, environment, on_line):
            await self.end()
        if process is None or not self._begun.is_set():
            return None
        self._watching.cancel()
        self._process = None
        return process

    async def end(self) -> None:
        """Kill the process, if it was not handed over. Safe to repeat; bounded by seconds."""
        if self._process is not None:
            self._process.signal(SIGKILL)
        await asyncio.wait({self._watching})

    async def _answers(
        self,
        process: AlgorithmProcess,
        spec: ProcessSpec,
        environment: Mapping[str, str],
        on_line: Callable[[FromProcess], None],
    ) -> bool:
        """Tell the process to go on; return whether it does."""
        if is_frozen(process.pid):
            _LOG.warning("process %d of the spare is stopped; another is started", process.pid)
            return False
        self._listener = on_line
        if not await self._happens(self._ready, self._load_limit_s):
            return False
        write_spec(spec)
        process.write_stdin(encode_go(environment))
        if await self._happens(self._begun, _ANSWER_S):
            return True
        _LOG.warning("process %d of the spare does not answer", process.pid)
        return False

    def reap_orphans(self) -> None:
        """Take the exit status of descendants that have become our children."""
        if self._process is not None:
            self._process.reap_orphans()

    async def _happens(self, event: asyncio.Event, limit_s: float) -> bool:
        """Wait for an answer of the process, its end, or the limit."""
        waiting = asyncio.ensure_future(event.wait())
        try:
            await asyncio.wait(
                {waiting, self._watching},
                timeout=limit_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            waiting.cancel()
        return event.is_set() and self._process is not None  # else it is being cleaned up

    def _give_up(self, process: AlgorithmProcess) -> None:
        """Kill a process that does not come to the end of its imports: nobody could use it."""
        _LOG.warning(
            "process %d of the spare of %s has not loaded its entry within %.1f s (limit set "
            "by `timeouts.process_start_timeout_s`); it is killed. Do its modules wait for "
            "something when they are imported?",
            process.pid,
            self._role,
            self._load_limit_s,
        )
        process.signal(SIGKILL)

    async def _watch(self, process: AlgorithmProcess) -> None:
        """Clean up behind a process that ends before it has begun."""
        await process.wait_exit()
        self._loading.cancel()
        process.drain()
        if self._begun.is_set():
            return  # it is handed over all the same
        self._process = None
        return_code = await process.clean_up()
        _LOG.info(
            "process %d of the spare of %s has ended with %d",
            process.pid,
            self._role,
            return_code,
        )
        await remove_work_dir(self.work_dir)
        self._on_state("ended", process.pid)

    def _on_line(self, line: FromProcess) -> None:
        if isinstance(line, AheadLine):
            if line.state == "ready":
                self._loading.cancel()
                self._ready.set()
                if self._listener is None:
                    self._on_state("ready", self.pid)
            else:
                self._begun.set()
        elif self._listener is not None:
            self._listener(line)
