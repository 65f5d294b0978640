"""What the end of an algorithm process means. Pure."""

from __future__ import annotations

import signal

import msgspec

from headrace.framework.failure import Failure
from headrace.framework.machine.facts import ProcessState

__all__ = ["outcome_of_exit"]

_HINTS = {
    "SIGKILL": " (by hand, or by the kernel because memory ran out)",
    "SIGSEGV": " (a fault in native code)",
    "SIGABRT": " (native code gave up)",
    "SIGBUS": " (a mapped file was cut, or shared memory is full)",
}


def outcome_of_exit(
    return_code: int,
    *,
    told: Failure | None,
    last_lines: tuple[str, ...],
    was_told_to_stop: bool,
    killed_for: str | None = None,
) -> tuple[ProcessState, Failure | None]:
    """Return how a process has ended.

    Args:
        return_code: As `subprocess` has it: the exit code, or minus the signal's number.
        told: What the process said itself before it ended.
        last_lines: Its last output.
        was_told_to_stop: Whether a signal of ours ended it, or might have.
        killed_for: Why its node has sent SIGKILL without being told to; None if it has not.
    """
    if was_told_to_stop:
        return ProcessState.STOPPED, None
    if told is not None:
        return ProcessState.FAILED, msgspec.structs.replace(told, last_lines=last_lines)
    if return_code == 0:
        return ProcessState.FINISHED, None
    if return_code < 0:
        name = _signal_name(-return_code)
        message = f"The process was lost{_HINTS.get(name, '')}."
        if killed_for is not None and return_code == -signal.SIGKILL:
            message = killed_for
        failure = Failure(
            kind="process_lost",
            message=message,
            signal=name,
            last_lines=last_lines,
        )
    else:
        failure = Failure(
            kind="user_code",
            message="The process gave up.",
            exit_code=return_code,
            last_lines=last_lines,
        )
    return ProcessState.FAILED, failure


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
