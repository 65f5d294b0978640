"""The end of a Flink job, which is waited for again and again."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Any

from py4j.protocol import Py4JJavaError
from pyflink.common import JobClient

from headrace.errors import JobFailedError, JobManagerLostError
from headrace.framework.status import JobStatus
from headrace.operator.failure import (
    cause_text,
    is_cancelled,
    is_end_of_job,
    is_of_unknown_job,
    lacks_slots,
)
from headrace.operator.retained_checkpoint import RetainedCheckpoint
from headrace.operator.stop import has_ended, state_of

__all__ = ["JobEnd", "JobResult"]

_LOG = logging.getLogger(__name__)
_ENDED = ("FAILED", "CANCELED", "FINISHED")
_STATUS_ACCUMULATOR = "headrace.status"
_LEAST_S = 10.0  # between two requests of which the first was lost
_UNKNOWN_S = 10.0  # a JobManager that has just taken over may not know its jobs yet
_UNKNOWN = (
    "Its cluster no longer knows it: the JobManager was started anew without high "
    "availability, or the job ended longer ago than Flink's `jobstore.expiration-time`."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobResult:
    """How a job ended that ended well.

    Attributes:
        job_id: Flink's job id, 32 hexadecimal digits.
        status: What the master said last: final row counts and reports of every node.
        duration_s: Flink's run time of the job, in seconds.
        savepoint: URI of the savepoint that the job was stopped with, by `JobHandle.stop` or
            because a process asked for it; None without one.
    """

    job_id: str
    status: JobStatus
    duration_s: float
    savepoint: str | None = None


class JobEnd:
    """What Flink tells of a job's end, asked for once.

    On a remote cluster each request has a REST client of its own until it is answered. It fails
    with the job, and also where Flink's client gives the JobManager up while the job may go on:
    then it is made again, as soon as Flink answers.

    Thread model: one thread.

    Source: Flink's `ClusterClientJobClientAdapter.getJobExecutionResult`, `JobResult`.

    Args:
        client: Flink's client of the job.
        job_name: Its name.
        am_uid: Uid of its am, which tells its last status.
        retained: What a job that fails leaves; None: nothing.
        lack_of_slots: What to add to the cause of one that Flink found no slots for.
    """

    def __init__(
        self,
        client: JobClient,
        *,
        job_name: str,
        am_uid: str,
        retained: RetainedCheckpoint | None = None,
        lack_of_slots: str = "",
    ) -> None:
        self._client = client
        self._job_id = str(client.get_job_id())
        self._retained = retained
        self._lack_of_slots = lack_of_slots
        self._job_name = job_name
        self._am_uid = am_uid
        self._j_future: Any = None
        self._asked_at = 0.0
        self._unknown_since: float | None = None

    def is_told(self, pause_ms: int) -> bool:
        """Wait `pause_ms` at most; return whether the job has ended, well or not.

        Raises:
            JobManagerLostError: Flink can no longer tell; the next call asks anew.
        """
        j_future = self._request()
        if not has_ended(j_future, pause_ms):
            if time.monotonic() - self._asked_at > _UNKNOWN_S:
                self._unknown_since = None  # it would have been refused by now
            return False
        loss = _loss(j_future)
        if loss is None:
            return True
        if is_of_unknown_job(loss):
            return self._is_unknown_for_good(pause_ms)
        self._unknown_since = None
        self._j_future = None
        is_at_once = time.monotonic() - self._asked_at < _LEAST_S
        state = None if is_at_once else state_of(self._client)
        if state is None:
            raise JobManagerLostError(self._job_name, cause_text(loss)) from loss
        _LOG.warning(
            "Flink did not tell for a while how job %s (%s) gets on: %s",
            *(self._job_name, state, cause_text(loss)),
        )
        return False

    def _is_unknown_for_good(self, pause_ms: int) -> bool:
        now = time.monotonic()
        if self._unknown_since is None:
            self._unknown_since = now
        if now - self._unknown_since >= _UNKNOWN_S:
            return True  # `result` tells it
        self._j_future = None
        threading.Event().wait(pause_ms / 1000)
        return False

    def is_over(self, refusal: Py4JJavaError) -> bool:
        """Return whether a job that Flink did not cancel runs no longer.

        Args:
            refusal: What Flink answered.
        """
        if is_of_unknown_job(refusal) or state_of(self._client) in _ENDED:
            return True
        # An embedded cluster that is gone with its job knows no state, but how the job ended.
        j_future = self._request()
        return has_ended(j_future, 0) and _loss(j_future) is None

    def result(self, last_status: JobStatus) -> JobResult:
        """Return the result of a job whose end `is_told`.

        Args:
            last_status: Its status, unless the am has told another at its end.

        Raises:
            JobFailedError: The job has failed, or was cancelled.
        """
        try:
            j_result = self._request().get()
        except Exception as exc:
            cause = cause_text(exc)
            if isinstance(exc, Py4JJavaError) and is_of_unknown_job(exc):
                cause = f"{_UNKNOWN} {cause}"
            if self._lack_of_slots and lacks_slots(exc):
                cause = f"{cause}\n{self._lack_of_slots}"
            retained = None if is_cancelled(exc) else self._retained
            advice = "" if retained is None else retained.advice(self._job_id)
            raise JobFailedError(self._job_name, cause, advice) from exc
        text = j_result.getAllAccumulatorResults().get(f"{_STATUS_ACCUMULATOR}.{self._am_uid}")
        return JobResult(
            job_id=self._job_id,
            status=JobStatus.from_json(str(text)) if text else last_status,
            duration_s=j_result.getNetRuntime() / 1000.0,
        )

    def _request(self) -> Any:
        if self._j_future is None:
            j_client = self._client._j_job_client  # noqa: SLF001 - PyFlink has no public way
            self._j_future = j_client.getJobExecutionResult()
            self._asked_at = time.monotonic()
        return self._j_future


def _loss(j_future: Any) -> Py4JJavaError | None:
    """Return why a request that has ended does not tell the job's end; None if it does."""
    try:
        j_future.get()
    except Py4JJavaError as exc:
        return None if is_end_of_job(exc) else exc
    return None
