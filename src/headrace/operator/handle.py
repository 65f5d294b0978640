"""A submitted job: wait for it, look at it, end it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.common import JobClient
from pyflink.java_gateway import get_gateway

from headrace.errors import HeadraceError, StopError
from headrace.framework.status import JobStatus
from headrace.operator.drain import Drain
from headrace.operator.failure import cause_text, is_lost_contact
from headrace.operator.job_end import JobEnd, JobResult
from headrace.operator.local_checkpoints import LocalCheckpoints
from headrace.operator.progress import Progress
from headrace.operator.retained_checkpoint import RetainedCheckpoint
from headrace.operator.stop import (
    SavepointStop,
    hold,
    release,
    savepoint_uri,
    state_of,
    wished_place,
)
from headrace.operator.wait_limit import WaitLimit

__all__ = ["JobHandle", "JobResult"]

_LOG = logging.getLogger(__name__)
_FAILING_MS = 2_000  # from Flink's answer to the end of a job that fails with it
_ANSWER_MS = 10_000  # from the end of a job to Flink's answer about its savepoint
_STATUS_MS = 10_000
_ENDING = ("FAILING", "FAILED", "CANCELLING", "CANCELED", "FINISHED")


class JobHandle:
    """A submitted job; `Cluster.submit` returns it.

    Attributes:
        job_name: Name of the job.
        job_id: Flink's job id, 32 hexadecimal digits.

    Thread model: one thread at a time. Two at once make PyFlink's gateway open a connection on
    which it does not find Headrace's classes. All methods talk to Flink. A question that it
    does not answer ends after 10 s, `cancel` when Flink's client gives up. `wait` and `stop`
    block until the job has ended. Their limit holds for questions about the status; those that
    belong to an order to stop are asked to their end, 10 s each where Flink does not answer.
    """

    def __init__(
        self,
        client: JobClient,
        *,
        job_name: str,
        am_uid: str,
        drain: Drain | None = None,
        checkpoints: LocalCheckpoints | None = None,
        fed_roles: Iterable[str] = (),
        savepoint_dir: str | None = None,
        retained: RetainedCheckpoint | None = None,
        lack_of_slots: str = "",
    ) -> None:
        self._client = client
        self._j_client = client._j_job_client  # noqa: SLF001 - PyFlink has no public way
        self._end = JobEnd(
            client,
            job_name=job_name,
            am_uid=am_uid,
            retained=retained,
            lack_of_slots=lack_of_slots,
        )
        self._am_uid = am_uid
        self._drain = drain
        self._checkpoints = checkpoints
        self._fed_roles = frozenset(fed_roles)
        self._savepoint_dir = savepoint_dir
        self._stop: SavepointStop | None = None
        self._last_status = JobStatus()
        self.job_name = job_name
        self.job_id = str(client.get_job_id())

    def status(self) -> JobStatus:
        """Ask the am operator's coordinator for the present status.

        Returns:
            The last one known, if the job has ended or Flink cannot answer now (it is
            restarting the job, for example).

        Source: docs/lifecycle.md, section 4.
        """
        return self._present_status() or self._last_status

    def wait(
        self,
        *,
        timeout_s: float | None = None,
        show_progress: bool = True,
        savepoint: str | Path | None = None,
    ) -> JobResult:
        """Block until the job has ended; shows progress on stderr meanwhile.

        If the ML cluster ends before an unbounded input does (`ctx.stop_job`, or every entry
        function has returned), Flink's job would go on without it for ever; it is then stopped
        with a drain, so that its other sinks finish in order. Where a process has asked for a
        savepoint (`ctx.stop_job(reason, savepoint=True)`), the job is stopped as by `stop`; one
        that has ended by itself before that has ended well, without a savepoint. Behind a
        `stop` that has not come to its end, this waits for the same.

        Args:
            timeout_s: Longest wait, in seconds; the job goes on after it. None waits until the
                end.
            show_progress: Whether to show a live line (terminal) or a line each 10 s (log).
            savepoint: Directory for the savepoint that a process asks for; None: what Flink's
                option `execution.checkpointing.savepoint-dir` says.

        Returns:
            The result of a job that finished.

        Raises:
            JobFailedError: The job failed or was cancelled; carries the cause, with the Python
                traceback where user code raised.
            WaitTimeoutError: `timeout_s` has passed.
            StopError: As `stop`, where that was called before, or a process has asked for a
                savepoint; or the job could not be drained, and goes on.
            JobManagerLostError: As `stop`.
            UsageError: A process has asked for a savepoint, and there is no directory for it;
                the job goes on.
            ConfigError: Likewise, and `savepoint` is empty.
        """
        progress = Progress(self.job_name) if show_progress else None
        limit = WaitLimit(self.job_name, "wait()", timeout_s)
        stop = self._stop
        try:
            while stop is None:
                if limit.has_ended(self._end.is_told):
                    return self._result()
                status = self._status_within(limit)
                if progress is not None:
                    progress.update(status)
                if status.savepoint_wish is not None:
                    stop = self._grant_wish(savepoint)
                if stop is None and self._drain is not None and status.state == "FINISHED":
                    self._drain.start_if_needed(self._client, self._am_uid)
            return self._finish_stop(stop, limit, progress)
        finally:
            if progress is not None:
                progress.close(self._last_status)

    def stop(
        self,
        savepoint: str | Path,
        *,
        drain: bool = True,
        timeout_s: float | None = None,
        show_progress: bool = True,
    ) -> JobResult:
        """Stop the job with a savepoint and block until it has ended.

        With a drain the sources stop, every row that they have made is used, the entry
        functions end as at the end of their input and save their model, and all sinks commit.
        The savepoint then holds the state as of those rows: a job that is restored from it goes
        on behind them. Without, the processes are stopped where they are, nothing is saved
        outside of the savepoint, and windows that are open stay open in it: to go on later.

        A drain takes as long as the processes get on. One that gives no sign for
        `timeouts.stop_timeout_s` (30 s) is ended, and what it has not saved is lost: a
        `StopError` names it. A sign is a batch of any pass or of `ctx.held_out`, a step of an
        optimizer of PyTorch, a `ctx.report`, a `ctx.save` that is done, the end. What takes
        longer without any, such as one save or an evaluation of other data, needs a longer
        limit, or a `ctx.report` now and then. Until the entry function is called the limit is
        `timeouts.process_start_timeout_s`.

        In a job that goes on without its ML cluster, which has ended by itself, the order waits
        until that is closed: for `timeouts.stop_timeout_s` and some seconds at most.

        A second call with the same arguments, after a `WaitTimeoutError` for example, waits for
        the same stop.

        Args:
            savepoint: Directory for the savepoint: a path, or a URI of one of Flink's file
                systems. Flink makes a directory of its own in it.
            drain: Whether the input ends before the savepoint.
            timeout_s: Longest wait, in seconds; the stop goes on after it. None waits until the
                end.
            show_progress: As for `wait`.

        Returns:
            The result, with the savepoint's URI.

        Raises:
            StopError: There is no savepoint: the directory cannot be written, the job had ended
                by itself, or a process failed meanwhile; the text says whether the job goes on.
                Or, with `savepoint` set, a process had to be ended before its function was
                done.
            JobFailedError: The job has failed, or had.
            WaitTimeoutError: `timeout_s` has passed.
            JobManagerLostError: Flink's client has given up to ask the JobManager
                (`rest.retry.max-attempts`, `rest.retry.delay`: a minute by default). The job
                may go on; another call asks anew.
            UsageError: It is being stopped with another directory, or another `drain`.
            ConfigError: `savepoint` is empty.

        Source: Flink's `JobClient.stopWithSavepoint`; docs/adr/0118.
        """
        target = savepoint_uri(savepoint)
        limit = WaitLimit(self.job_name, "stop()", timeout_s)
        progress = Progress(self.job_name) if show_progress else None
        try:
            stop = self._begin_stop(target, limit, drains=drain)
            return self._finish_stop(stop, limit, progress)
        finally:
            if progress is not None:
                progress.close(self._last_status)

    def cancel(self) -> None:
        """Cancel the job and block until Flink has accepted it.

        A job that has ended already, or that its cluster no longer knows, stays as it is.

        Raises:
            HeadraceError: Flink did not accept it, or its cluster cannot be reached: the job
                may go on.
        """
        try:
            self._client.cancel().result()
        except Py4JJavaError as exc:
            if not self._end.is_over(exc):
                msg = f"Job {self.job_name!r} was not cancelled: {cause_text(exc)}"
                raise HeadraceError(msg) from exc
            _LOG.debug("job %s had ended already: %s", self.job_name, cause_text(exc))

    def _status_within(self, limit: WaitLimit) -> JobStatus:
        return self._present_status(limit.left_ms(_STATUS_MS)) or self._last_status

    def _present_status(self, limit_ms: int = _STATUS_MS) -> JobStatus | None:
        """Return what the am's coordinator says now; None if it does not answer."""
        builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
        try:
            text = builder.status(self._j_client, self._am_uid, limit_ms)
        except Py4JJavaError as exc:
            _LOG.debug("job %s did not tell its status: %s", self.job_name, cause_text(exc))
            return None
        if text:
            self._last_status = JobStatus.from_json(text)
        return self._last_status

    def _present_wish(self) -> str | None:
        """Return the wish of the attempt that runs; None without one, or while none runs.

        The coordinator forgets the wish of an attempt when the next one is deployed, which
        comes some time after the failure. The state is asked first, so that it is that of the
        attempt whose status comes behind it.
        """
        if state_of(self._client) != "RUNNING":
            return None
        status = self._present_status()
        return None if status is None else status.savepoint_wish

    def _grant_wish(self, given: str | Path | None) -> SavepointStop | None:
        """Give the order that a process of the present attempt asks for.

        None where that attempt has no wish, or the job is ending by itself.
        """
        if self._end.is_told(0):
            return None
        with ExitStack() as undo:
            undo.callback(release, self._j_client, self._am_uid)
            if hold(self._j_client, self._am_uid) > 0 or (wish := self._present_wish()) is None:
                return None
            target = wished_place(self._savepoint_dir if given is None else given, wish)
            stop = self._order(target, drains=True, is_wished=True)
            undo.pop_all()
        return stop

    def _begin_stop(self, target: str, limit: WaitLimit, *, drains: bool) -> SavepointStop:
        """Give the order, unless it was given."""
        stop = self._stop
        if stop is not None and stop.is_same(target, drains=drains):
            return stop
        if self._end.is_told(0):
            raise self._too_late(target)
        if stop is not None:
            raise stop.other_error()
        with ExitStack() as undo:
            undo.callback(release, self._j_client, self._am_uid)
            # A savepoint that meets a task which is just closing fails the job.
            while hold(self._j_client, self._am_uid) > 0:
                if limit.has_ended(self._end.is_told):
                    raise self._too_late(target)
            stop = self._order(target, drains=drains)
            undo.pop_all()
        return stop

    def _order(self, target: str, *, drains: bool, is_wished: bool = False) -> SavepointStop:
        self._stop = SavepointStop(
            self._j_client,
            job_name=self.job_name,
            target=target,
            drains=drains,
            is_wished=is_wished,
        )
        return self._stop

    def _finish_stop(
        self, stop: SavepointStop, limit: WaitLimit, show: Progress | None
    ) -> JobResult:
        """Wait for the stop that was begun, and for the job's end; the order is kept till then.

        An order without a savepoint is void once the job's state behind it is known.
        """
        while not limit.has_ended(stop.is_answered):
            if self._end.is_told(0):
                break
            if show is not None:
                show.update(self._status_within(limit))
        made, error = self._savepoint_of(stop, limit)
        if made is None:
            why = _NO_ANSWER if error is None else cause_text(error)
            if error is not None and is_lost_contact(error):
                why = f"{_LOST_ANSWER} {why}"
            state = self._state_behind(limit)
            self._stop = None
            if state == "FINISHED" and stop.is_wished and limit.method == "wait()":
                _LOG.warning("job %s ended without a savepoint: %s", self.job_name, why)
                return self._result()
            raise stop.error(why, job_state=state) from error
        while not limit.has_ended(self._end.is_told):
            pass
        result = replace(self._result(), savepoint=made)
        stop.require_finished(result.status, self._fed_roles, made)
        return result

    def _too_late(self, target: str) -> StopError:
        """Return the error for a job that has ended well by itself; raises where it failed."""
        self._result()
        return StopError(
            job_name=self.job_name, target=target, cause=_TOO_LATE, job_state="FINISHED"
        )

    def _savepoint_of(
        self, stop: SavepointStop, limit: WaitLimit
    ) -> tuple[str | None, Py4JError | None]:
        """Return the savepoint, or None and why there is none; the job may end by itself then.

        Raises:
            WaitTimeoutError: The job has ended, and the limit passes before Flink answers.
        """
        error: Py4JError | None = None
        try:
            if stop.is_answered(limit.left_ms(_ANSWER_MS)):
                return stop.savepoint(), None
        except Py4JError as exc:
            error = exc
        else:
            limit.require_left(
                f"Flink's answer about the savepoint of job {self.job_name!r}",
                "The job has ended. Call the same again to wait on for the answer.",
            )
        release(self._j_client, self._am_uid)
        return None, error

    def _state_behind(self, limit: WaitLimit) -> str:
        """Return in which state a stop that has failed leaves the job; raise its failure."""
        if not self._end.is_told(_FAILING_MS):
            while (state := state_of(self._client)) is None or state in _ENDING:
                if limit.has_ended(self._end.is_told):
                    break
            else:
                return state
        self._result()
        return "FINISHED"

    def _result(self) -> JobResult:
        for directory in (self._drain, self._checkpoints):
            if directory is not None:  # not before the job's end: it writes there
                directory.close()
        result = self._end.result(self._last_status)
        self._last_status = result.status
        return result


_TOO_LATE = "Nothing was stopped."
_NO_ANSWER = "At least none that Flink has told of: it never answered the order."
_LOST_ANSWER = (
    "Flink may carry out the order all the same: contact with its JobManager was lost before "
    "the answer."
)
