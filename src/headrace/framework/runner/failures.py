"""Turns what an entry function raised into a failure."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

import headrace
from headrace.errors import ConfigError, PlanError, UsageError
from headrace.framework.failure import Failure

__all__ = ["exit_code_of", "failure_of", "is_raised_by_others", "traceback_of"]

_OURS = str(Path(headrace.__file__).parent)
_HOPELESS = (ImportError, SyntaxError, ConfigError, PlanError, UsageError)
_TEXT_CHARACTERS = 65_536


def failure_of(error: BaseException) -> Failure | None:
    """Return the failure that `error` is, or None if it is an exit with success.

    Errors that no other start can mend (import, syntax, configuration) are not restartable. The
    traceback begins with the first frame that is not ours.
    """
    if isinstance(error, SystemExit) and exit_code_of(error) == 0:
        return None
    return Failure(
        kind="user_code",
        message=_summary(error),
        traceback=traceback_of(error),
        exit_code=exit_code_of(error),
        is_restartable=not isinstance(error, _HOPELESS),
    )


def traceback_of(error: BaseException) -> str:
    """Return the traceback from the first frame that is not ours; bounded."""
    trace = _theirs(error.__traceback__) or error.__traceback__
    return _shortened("".join(traceback.format_exception(type(error), error, trace)))


def is_raised_by_others(error: BaseException) -> bool:
    """Whether a frame that is not ours is in the traceback."""
    return _theirs(error.__traceback__) is not None


def exit_code_of(error: BaseException) -> int:
    """Return the exit code that Python would end with."""
    if not isinstance(error, SystemExit):
        return 1
    if error.code is None:
        return 0
    return error.code & 0xFF if isinstance(error.code, int) else 1


def _summary(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return _shortened(f"sys.exit({_code_text(error)}) was called", limit=1000)
    lines = traceback.format_exception_only(type(error), error)
    return _shortened(lines[-1].strip().partition("\n")[0], limit=1000)


def _code_text(error: SystemExit) -> str:
    try:
        return repr(error.code)
    except Exception:  # noqa: BLE001 - a repr of the user's
        return f"a {type(error.code).__name__}"


def _theirs(trace: TracebackType | None) -> TracebackType | None:
    """Return the traceback without our leading frames; None if every frame is ours."""
    rest = trace
    while rest is not None:
        if not rest.tb_frame.f_code.co_filename.startswith(_OURS):
            return rest
        rest = rest.tb_next
    return None


def _shortened(text: str, limit: int = _TEXT_CHARACTERS) -> str:
    """Return the text, bounded, as one that travels: a lone surrogate has no UTF-8."""
    if len(text) > limit:
        half = limit // 2
        left_out = len(text) - limit
        text = f"{text[:half]}\n... {left_out} characters left out ...\n{text[-half:]}"
    return text.encode("utf-8", "backslashreplace").decode()
