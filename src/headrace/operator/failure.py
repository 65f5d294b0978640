"""From Flink's chain of exceptions to the one text that a user needs."""

from __future__ import annotations

from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.util.java_utils import is_instance_of

__all__ = [
    "cause_text",
    "is_cancelled",
    "is_end_of_job",
    "is_lost_contact",
    "is_of_unknown_job",
    "lacks_slots",
]

_OURS = "org.headrace."
_CANCELLED = "org.apache.flink.runtime.client.JobCancellationException"
_END_OF_JOB = "org.apache.flink.runtime.client.JobExecutionException"
_UNKNOWN_JOB = "org.apache.flink.runtime.messages.FlinkJobNotFoundException"
_REST = "org.apache.flink.runtime.rest.util.RestClientException"
_MISSING = 404
_GIVEN_UP = "org.apache.flink.util.concurrent.FutureUtils$RetryException"
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


def is_end_of_job(error: Py4JJavaError) -> bool:
    """Return whether it says how a job ended, and not that Flink could not be asked.

    Source: Flink's `JobResult.toJobExecutionResult`.
    """
    return any(is_instance_of(each, _END_OF_JOB) for each in _chain(error.java_exception))


def is_lost_contact(error: Py4JError) -> bool:
    """Return whether Flink's client has given up to reach the JobManager."""
    return isinstance(error, Py4JJavaError) and any(
        is_instance_of(each, _GIVEN_UP) for each in _chain(error.java_exception)
    )


def is_of_unknown_job(error: Py4JJavaError) -> bool:
    """Return whether Flink says that it has no such job: it never had, or has no longer."""
    return any(
        is_instance_of(each, _UNKNOWN_JOB)
        or (is_instance_of(each, _REST) and each.getHttpResponseStatus().code() == _MISSING)
        for each in _chain(error.java_exception)
    )


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
