"""When a JVM that is stopped counts as gone (ADR 0129). Linux only."""

from __future__ import annotations

import os
import select
import stat
import threading
from collections.abc import Callable

from headrace.framework.node.family import is_frozen

__all__ = ["watch_for_freeze"]

_LONGEST_PAUSE_S = 1.0
_ROOM_EVERY_S = 0.05
_READ_BYTES = 65_536


def watch_for_freeze(pid: int, limit_s: float, on_frozen: Callable[[float], None]) -> None:
    """Look from now on whether our parent is stopped (SIGSTOP), on a thread of its own.

    Its pipes stay open then, so that nothing else tells. What counts is the number of looks:
    while this process is stopped as well, no time passes.

    A thread, since the others may hang: whoever writes to stderr waits for the JVM to read it.
    Behind the limit the thread takes out of that pipe what nobody reads, where it is full, so
    that this process can end.

    Args:
        pid: The JVM.
        limit_s: How long it may be stopped, in seconds.
        on_frozen: Told once, on that thread, for how many seconds it was seen to be stopped.
    """
    arguments = (pid, limit_s, on_frozen)
    threading.Thread(target=_watch, args=arguments, name="headrace-jvm", daemon=True).start()


def _watch(pid: int, limit_s: float, on_frozen: Callable[[float], None]) -> None:
    pause = threading.Event()
    every_s = min(_LONGEST_PAUSE_S, limit_s / 10)
    looks = 0
    while looks * every_s < limit_s:
        pause.wait(every_s)
        looks = looks + 1 if is_frozen(pid) else 0
    on_frozen(looks * every_s)
    while stat.S_ISFIFO(os.fstat(2).st_mode):
        _make_room(2)
        pause.wait(_ROOM_EVERY_S)


def _make_room(pipe: int) -> None:
    """Empty a pipe that is full; give its writing end."""
    if select.select([], [pipe], [], 0)[1]:
        return
    reader = os.open(f"/proc/self/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.read(reader, _READ_BYTES)
    finally:
        os.close(reader)
