"""How a node asks its algorithm process to end: SIGTERM, as an exception in the main thread.

Python runs handlers of signals in the main thread between two of its instructions, so a main
thread that is inside a library for long sees nothing meanwhile. Other threads can ask
`require_no_stop`, which knows at once, and end what the main thread waits for.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

__all__ = ["StopRequestedExit", "raise_on_sigterm", "require_no_stop"]

_BYTES = 64


class StopRequestedExit(SystemExit):
    """The job ends, or the group starts again: this process is to end now.

    Raised in the main thread wherever it is. What does not end within `timeouts.stop_grace_s`
    is killed. It is a `SystemExit` with code 0, so a function that cleans up on its way out
    only needs `finally`.
    """

    def __init__(self) -> None:
        super().__init__(0)


class _Asked:
    """The signals that have arrived, as the system wrote them into a pipe."""

    read_fd: int | None = None
    write_fd: int | None = None
    was_asked = False


def raise_on_sigterm() -> None:
    """Turn the first SIGTERM of this process into `StopRequestedExit`. Main thread only.

    Processes that it forks die of SIGTERM as usual.
    """
    owner_pid = os.getpid()

    def on_sigterm(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        if os.getpid() != owner_pid:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        raise StopRequestedExit

    _Asked.read_fd, _Asked.write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(_Asked.write_fd, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, on_sigterm)
    os.register_at_fork(after_in_child=_leave_the_pipe)


def _leave_the_pipe() -> None:
    """In a forked process: its signals are its own, and the pipe is that of its parent."""
    taken_fd = signal.set_wakeup_fd(-1)
    if taken_fd != _Asked.write_fd:  # a program that takes the descriptor for itself
        signal.set_wakeup_fd(taken_fd)
    _Asked.read_fd = None


def require_no_stop() -> None:
    """Raise if SIGTERM has come, also where the main thread has not noticed it yet.

    Any thread may call it. Does nothing without `raise_on_sigterm`, and in a program that takes
    Python's wake-up descriptor for itself.

    Raises:
        StopRequestedExit: The process is to end now.
    """
    if _Asked.read_fd is not None and not _Asked.was_asked:
        try:
            numbers = os.read(_Asked.read_fd, _BYTES)
        except BlockingIOError:
            numbers = b""
        if signal.SIGTERM in numbers:  # else another thread may have read it meanwhile
            _Asked.was_asked = True
    if _Asked.was_asked:
        raise StopRequestedExit
