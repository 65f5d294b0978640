"""From Flink's chain of exceptions to the one text that a user needs."""

from __future__ import annotations

from typing import Any

__all__ = ["cause_text", "is_cancelled", "lacks_slots"]

_OURS = "org.headrace."
_CANCELLED = "org.apache.flink.runtime.client.JobCancellationException"
_NO_SLOTS = "org.apache.flink.runtime.jobmanager.scheduler.NoResourceAvailableException"
_MOST_CAUSES = 50


def cause_text(error: BaseException) -> str:
    """Return the text of the cause that says most: ours if there is one, else the deepest.

    Args:
        error: What a PyFlink call raised.
    """
    java = getattr(error, "java_exception", None)
    if java is None:
        return f"{type(error).__name__}: {error}"
    chain = _chain(java)
    for throwable in chain:
        name, text = _name_and_text(throwable)
        if name.startswith(_OURS):
            return text
    return "\n  caused by: ".join(" - ".join(_name_and_text(t)) for t in (chain[0], chain[-1]))


def is_cancelled(error: BaseException) -> bool:
    """Return whether a PyFlink call raised this because the job was cancelled."""
    return _has_cause(error, _CANCELLED)


def lacks_slots(error: BaseException) -> bool:
    """Return whether a PyFlink call raised this because Flink found too few task slots."""
    return _has_cause(error, _NO_SLOTS)


def _has_cause(error: BaseException, name: str) -> bool:
    java = getattr(error, "java_exception", None)
    chain = [] if java is None else _chain(java)
    return any(_name_and_text(throwable)[0] == name for throwable in chain)


def _chain(java: Any) -> list[Any]:
    chain = [java]
    while len(chain) < _MOST_CAUSES:
        cause = chain[-1].getCause()
        if cause is None:
            break
        chain.append(cause)
    return chain


def _name_and_text(throwable: Any) -> tuple[str, str]:
    """Class name and message; a SerializedThrowable tells those of what it stands for."""
    name = str(throwable.getClass().getName())
    text = str(throwable.getMessage() or "")
    if name.endswith("SerializedThrowable"):
        name = str(throwable.getOriginalErrorClassName())
        text = text.removeprefix(f"{name}: ")
    return name, text
