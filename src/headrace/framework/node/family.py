"""Finding and killing every process that an algorithm process has left. Linux only."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

__all__ = [
    "become_subreaper",
    "build_parent_watch",
    "is_frozen",
    "kill_family",
    "reap_orphans",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")
_KILL_PAUSE_S = 0.005
_LIBC = ctypes.CDLL(None, use_errno=True)


def become_subreaper() -> None:
    """Make orphaned descendants children of this process, so that none can escape it."""
    _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def build_parent_watch(parent: int) -> Callable[[], None]:
    """Return what a child runs between fork and exec, to die with the thread that forked it.

    It also takes back that this process ignores SIGINT, which would be inherited.
    """

    def watch() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return watch


async def kill_family(
    pid: int, *, marker: str, reaper: int | None, limit_s: float
) -> list[int]:
    """Kill everything that belongs to the algorithm process `pid`, and the process itself.

    That is: its process group, every descendant, everything whose environment holds
    `marker`, and, in a subreaper, every descendant of the subreaper.

    Args:
        pid: The algorithm process, which leads its process group. It must not be reaped yet.
        marker: A line "NAME=value" that only this process' environment holds.
        reaper: This process' pid if it is a subreaper, else None.
        limit_s: When to give up, in seconds.

    Returns:
        The processes that are left, for example in an uninterruptible wait of the kernel.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limit_s
    while True:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        left = _find(pid, marker.encode(), reaper)
        for member in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(member, signal.SIGKILL)
        if not left or loop.time() >= deadline:
            return left
        await asyncio.sleep(_KILL_PAUSE_S)


def is_frozen(pid: int) -> bool:
    """Whether a process is stopped, by SIGSTOP for example; not so if it is gone."""
    try:
        stat = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 :].startswith((b"T", b"t"))


def reap_orphans(except_pid: int) -> None:
    """Take the exit status of every ended child but `except_pid`."""
    for child, parent, state in _processes():
        if parent == os.getpid() and state == "Z" and child != except_pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(child, os.WNOHANG)


def _find(pid: int, marker: bytes, reaper: int | None) -> list[int]:
    """Return the living members of the family, this process excluded."""
    children: dict[int, list[int]] = {}
    alive = []
    for each, parent, state in _processes():
        children.setdefault(parent, []).append(each)
        if state not in "ZX":
            alive.append(each)
    family = {pid}
    roots = [pid] if reaper is None else [pid, reaper]
    while roots:
        for child in children.get(roots.pop(), ()):
            if child not in family:
                family.add(child)
                roots.append(child)
    family |= {each for each in alive if each not in family and _is_marked(each, marker)}
    return [each for each in alive if each in family and each != os.getpid()]


def _is_marked(pid: int, marker: bytes) -> bool:
    try:
        return marker in (_PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _processes() -> Iterator[tuple[int, int, str]]:
    """Yield (pid, parent, state) of every process."""
    for entry in os.listdir(_PROC):  # noqa: PTH208 - called often, pathlib is slow here
        if not entry.isdecimal():
            continue
        try:
            stat = (_PROC / entry / "stat").read_bytes()
        except OSError:
            continue
        state, parent = stat[stat.rindex(b")") + 2 :].split(b" ", 2)[:2]
        yield int(entry), int(parent), state.decode()
