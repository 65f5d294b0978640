"""How a node asks its algorithm process to end: SIGTERM, as an exception in the main thread."""

from __future__ import annotations

import os
import signal
from types import FrameType

__all__ = ["StopRequestedExit", "raise_on_sigterm"]


class StopRequestedExit(SystemExit):
    """The job ends, or the group starts again: this process is to end now.

    Raised in the main thread wherever it is. What does not end within `timeouts.stop_grace_s`
    is killed. It is a `SystemExit` with code 0, so a function that cleans up on its way out
    only needs `finally`.
    """

    def __init__(self) -> None:
        super().__init__(0)


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

    signal.signal(signal.SIGTERM, on_sigterm)
