"""What master and node have in common as children of the JVM."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from typing import BinaryIO, NoReturn

from headrace.framework.jvm import claim_stdout

__all__ = ["end_process", "prepare_child"]


def prepare_child(name: str) -> BinaryIO:
    """Set up the process; returns the file for the lines to the JVM. Call it first.

    Log lines go to stderr without a time: the JVM's log adds it. SIGINT is ignored: Ctrl-C
    reaches the whole foreground group, and the JVM ends its children itself.
    """
    lines = claim_stdout()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format=f"%(levelname)s {name}: %(message)s"
    )
    return lines


def end_process(exit_code: int) -> NoReturn:
    """End at once: no thread of a library can hold the exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)
