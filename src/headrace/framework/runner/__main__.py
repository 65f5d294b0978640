"""The algorithm process of a function, started by a node as `-m headrace.framework.runner`.

Loads the entry, calls `entry(spec, link)`, and tells the node how it failed, if it did. With
`--ahead PAYLOAD` it loads the entry first and then waits for its spec.
Returning, and `sys.exit()` or `sys.exit(0)`, are success; every other exception and exit
code is a failure.

The process then ends as any Python program does (threads that are not daemons are awaited,
`atexit` functions run), with two differences: the wait is bounded, by
`timeouts.stop_timeout_s` after success and `timeouts.stop_grace_s` after a failure, and
native libraries are not torn down, since some crash in it.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import os
import sys
import threading
from typing import Any

from headrace._imports import quick_imports
from headrace.errors import ConfigError, HeadraceError
from headrace.framework.failure import Failure
from headrace.framework.link import ProcessLink
from headrace.framework.payload import load_entry
from headrace.framework.process import ProcessSpec, read_process_spec
from headrace.framework.runner.ahead import FLAG, load_ahead
from headrace.framework.runner.failures import (
    exit_code_of,
    failure_of,
    is_raised_by_others,
    traceback_of,
)
from headrace.framework.stopping import raise_on_sigterm

__all__ = ["main"]


def main() -> None:
    """Run the entry function of this process. Never returns in a fork of it."""
    faulthandler.enable()
    link = ProcessLink.from_environment()
    entry = load_ahead(sys.argv[2], link) if sys.argv[1:2] == [FLAG] else None
    spec = read_process_spec()
    raise_on_sigterm()
    own_pid = os.getpid()
    exit_code = 0

    def end_at_once() -> None:
        _flush()
        os._exit(exit_code)

    atexit.register(end_at_once)  # registered first, so it runs last
    failure, exit_code = _run(spec, link, entry)
    if os.getpid() != own_pid:
        end_at_once()  # the entry function forked, and the child came back as well
    if failure is not None:
        _tell(failure, link)
    link.close()
    _flush()
    setting = "stop_timeout_s" if failure is None else "stop_grace_s"
    _bound_the_exit(getattr(spec.timeouts, setting), f"timeouts.{setting}", exit_code)


def _run(spec: ProcessSpec, link: ProcessLink, entry: Any) -> tuple[Failure | None, int]:
    try:
        if entry is None:
            with quick_imports():
                entry = load_entry(spec.payload_path)
    except ConfigError as exc:
        cause = exc.__cause__ or exc
        failure = Failure(
            kind="environment",
            message=str(exc),
            traceback=traceback_of(cause) if is_raised_by_others(cause) else None,
            exit_code=1,
            is_restartable=False,
        )
        return failure, 1
    try:
        entry(spec, link)
    except BaseException as exc:  # noqa: BLE001
        return failure_of(exc), exit_code_of(exc)
    return None, 0


def _tell(failure: Failure, link: ProcessLink) -> None:
    """Tell the node, which logs it; if the link is broken, the last output has to say it."""
    try:
        link.failed(failure)
    except HeadraceError:
        _write(failure.traceback or f"{failure.message}\n")


def _bound_the_exit(limit_s: float, setting: str, exit_code: int) -> None:
    """End the process after `limit_s` seconds even if a thread of it never ends."""

    def end() -> None:
        threading.Event().wait(limit_s)
        names = [
            thread.name
            for thread in threading.enumerate()
            if not thread.daemon and thread is not threading.main_thread()
        ]
        _write(
            f"headrace: the process has not ended {limit_s:.1f} s after its function "
            f"(limit set by `{setting}`; threads still running: {names}); it is ended now.\n"
        )
        os._exit(exit_code)

    threading.Thread(target=end, name="headrace-exit", daemon=True).start()


def _write(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(text)
    _flush()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


if __name__ == "__main__":
    main()
    sys.exit()
