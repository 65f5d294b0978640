"""What master and node have in common as children of the JVM."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import BinaryIO, NoReturn

from headrace.framework.jvm import claim_stdout
from headrace.framework.jvm_lines import PrepareLine, StartLine

__all__ = ["end_process", "prepare_child", "remove_work_dir"]

_LOG = logging.getLogger(__name__)
_TRIES = 3


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


def remove_work_dir(start: StartLine | PrepareLine) -> None:
    """Remove the directories of this child: the JVM that owns them may be gone.

    Call it last: the JVM will not start another child there. Never raises.
    """
    work_dir = Path(start.work_dir)
    if Path(start.spec_path).parent == work_dir:  # it was made for this child alone
        for _ in range(_TRIES):  # what was just killed may have written meanwhile
            shutil.rmtree(work_dir, ignore_errors=True)
            if not work_dir.exists():
                break
        else:
            _LOG.warning("%s could not be removed", work_dir)
    if isinstance(start, StartLine) and start.queue_socket is not None:
        socket = Path(start.queue_socket)  # in a directory of its own if the path was too long
        with contextlib.suppress(OSError):
            socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            socket.parent.rmdir()


def end_process(exit_code: int) -> NoReturn:
    """End at once: no thread of a library can hold the exit."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(exit_code)
