"""One algorithm process: started, watched, ended, with everything that it has started."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Mapping

from headrace._environ import LINK_FD, PROCESS_SPEC
from headrace.framework.link_lines import FromNode, FromProcess
from headrace.framework.node.family import build_parent_watch, kill_family, reap_orphans
from headrace.framework.node.link_server import LinkServer
from headrace.framework.node.output import OutputPump

__all__ = ["AlgorithmProcess"]

_LOG = logging.getLogger(__name__)
_KILL_S = 1.0
_DRAIN_S = 1.0


class AlgorithmProcess:
    """A process in a session of its own, with a link and with its output in a pipe.

    Thread model: belongs to one asyncio loop, on whose thread it must be started: the
    process is killed when that thread ends. Two threads help it, one that waits for the exit
    and one that moves the output; both end with the process. `wait` must be awaited: it
    cleans up.

    Attributes:
        pid: Its pid, which is also its process group.
    """

    def __init__(
        self,
        *,
        name: str,
        argv: tuple[str, ...],
        environment: Mapping[str, str],
        cwd: str,
        spec_path: str,
        on_line: Callable[[FromProcess], None],
        sink: Callable[[bytes], None],
        prefix: bytes = b"",
        is_subreaper: bool,
        has_stdin: bool = False,
    ) -> None:
        self._marker = f"{PROCESS_SPEC}={spec_path}"
        self._reaper = os.getpid() if is_subreaper else None
        self._loop = asyncio.get_running_loop()
        self._exited = asyncio.Event()
        with contextlib.ExitStack() as undo:
            with contextlib.ExitStack() as theirs_only:
                ours, theirs = socket.socketpair()
                undo.callback(ours.close)
                theirs_only.callback(theirs.close)
                read_end, write_end = os.pipe()
                undo.callback(os.close, read_end)
                theirs_only.callback(os.close, write_end)
                self._popen = subprocess.Popen(  # noqa: S603 - starting this is the purpose
                    argv,
                    stdin=subprocess.PIPE if has_stdin else subprocess.DEVNULL,
                    stdout=write_end,
                    stderr=write_end,
                    cwd=cwd,
                    env={
                        **environment,
                        LINK_FD: str(theirs.fileno()),
                        PROCESS_SPEC: spec_path,
                    },
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                    preexec_fn=build_parent_watch(os.getpid()),
                )
            if self._popen.stdin is not None:
                undo.callback(self._popen.stdin.close)
            self.pid = self._popen.pid
            undo.callback(self._reap)
            undo.callback(self.signal, signal.SIGKILL)
            threading.Thread(
                target=self._await_exit, name=f"headrace-wait-{name}", daemon=True
            ).start()
            self._link = LinkServer(ours, on_line)
            undo.callback(self._link.close)
            self._pump = OutputPump(
                read_end, sink, name=f"headrace-output-{name}", prefix=prefix
            )
            undo.pop_all()

    def send(self, line: FromNode) -> None:
        """Send a line over the link; does not wait."""
        self._link.send(line)

    def write_stdin(self, line: bytes) -> None:
        """Give the process one short line, and the end of its stdin; lost if it has ended."""
        assert self._popen.stdin is not None
        with contextlib.suppress(OSError):
            self._popen.stdin.write(line)
            self._popen.stdin.flush()
        with contextlib.suppress(OSError):
            self._popen.stdin.close()

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of its output."""
        return self._pump.last_lines

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and its group; harmless when they have ended."""
        if self._popen.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def reap_orphans(self) -> None:
        """Take the exit status of descendants that have become our children."""
        if self._reaper is not None:
            reap_orphans(except_pid=self.pid)

    async def wait_exit(self) -> None:
        """Wait until the process itself has ended."""
        await self._exited.wait()

    def drain(self) -> None:
        """Take every line that it has sent; call it when the process has ended."""
        self._link.drain()

    async def clean_up(self) -> int:
        """Kill what the process has left, take its last words, and return its return code.

        Call it once, after `wait_exit`. Bounded: it takes two seconds at most.
        """
        self._link.drain()
        left = await kill_family(
            self.pid, marker=self._marker, reaper=self._reaper, limit_s=_KILL_S
        )
        if left:
            _LOG.warning("processes %s cannot be killed; the kernel holds them", left)
        self._link.close()
        if not await asyncio.to_thread(self._pump.finish, _DRAIN_S):
            _LOG.warning("the output of process %d cannot be written", self.pid)
        return_code = self._popen.wait()
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        if self._reaper is not None:
            reap_orphans(except_pid=0)
        return return_code

    def _reap(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds it
            self._popen.wait(_KILL_S)

    def _await_exit(self) -> None:
        with contextlib.suppress(ChildProcessError):  # reaped, since the start went wrong
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            self._loop.call_soon_threadsafe(self._exited.set)
