"""Ends a Flink job whose ML cluster has ended while an unbounded input goes on."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
import time
from pathlib import Path

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.common import JobClient
from pyflink.common.completable_future import CompletableFuture
from pyflink.java_gateway import get_gateway

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.failure import cause_text
from headrace.operator.flink_options import SAVEPOINT_DIR
from headrace.operator.stop import SavepointStop, has_ended, state_of

__all__ = ["Drain"]

_LOG = logging.getLogger(__name__)
_TRIES = 3
_HOLD_EVERY_S = 60.0  # the am's coordinator holds for ten minutes behind each question
_WITHOUT_CLUSTER = (
    "Its ML cluster has ended and its input goes on, so it drops rows: make the directory "
    "writable and call wait() again, stop() it with another directory, or cancel it."
)


class Drain:
    """Stops a job with a drain: every operator finishes, every sink commits.

    Flink does that only together with a savepoint, which nobody needs here. It goes to the
    directory that Flink is configured with when this is made, else on the embedded cluster to
    a temporary one, which ends with the job or the program; without any the job is cancelled.

    A drain that Flink refuses or does not finish is tried again, for a passing cause, and the
    last failure is raised: the job would go on without its ML cluster for ever.

    Thread model: one thread; `start_if_needed` does not wait for the job's end.

    Args:
        flink: Where the job is planned.
        job_name: For errors.
    """

    def __init__(self, flink: FlinkEnvironment, job_name: str) -> None:
        self._job_name = job_name
        self._cancel: CompletableFuture | None = None
        self._order: SavepointStop | None = None
        self._next_hold = 0.0
        self._failures = 0
        self._temporary: Path | None = None
        self._target = flink.option(SAVEPOINT_DIR)
        if self._target is None and flink.is_embedded:
            self._temporary = Path(tempfile.mkdtemp(prefix="headrace-drain-"))
            self._target = self._temporary.as_uri()
            atexit.register(self.close)

    def start_if_needed(self, client: JobClient, am_uid: str) -> None:
        """Ask Flink to stop the job, if an input goes on. Call it until the job has ended.

        Raises:
            StopError: Flink has refused it or not finished it three times, and the job goes on.
                The next call tries again.
        """
        if self._order is not None:
            self._look_at_order(self._order, client, am_uid)
        if self._is_being_cancelled(client):
            return
        if self._order is not None:
            self._hold_open(client, am_uid)
            return
        if not self._is_needed(client, am_uid):
            return
        if self._target is None:
            _LOG.warning(
                "The ML cluster has ended before its unbounded input; the job is cancelled and "
                "wait() raises. Set %s to a directory to have it drained, with its sinks.",
                SAVEPOINT_DIR,
            )
            self._cancel = client.cancel()
            return
        _LOG.info("The ML cluster has ended before its unbounded input; draining the job")
        self._next_hold = time.monotonic() + _HOLD_EVERY_S
        self._order = SavepointStop(
            client._j_job_client,  # noqa: SLF001 (no public way to the format)
            job_name=self._job_name,
            target=self._target,
            drains=True,
            is_kept=False,
        )

    def _is_being_cancelled(self, client: JobClient) -> bool:
        """Whether it is; not where Flink has not done it, or another JobManager went on."""
        if self._cancel is None or not self._cancel.done():
            return self._cancel is not None
        if state_of(client) != "RUNNING":
            return True
        self._cancel = None
        return False

    def _look_at_order(self, order: SavepointStop, client: JobClient, am_uid: str) -> None:
        """Forget an order that has failed, so that another one is given where one is needed."""
        if not has_ended(order.j_future, 0):
            return
        try:
            order.savepoint()
        except Py4JError as error:
            cause = cause_text(error)
        else:
            return  # the job's end is near
        state = state_of(client)
        if state is None:
            return  # looked at again with the next status
        if state != "RUNNING":  # it has ended by itself or is restarting, and says why
            _LOG.info("The job was not drained (%s): %s", state, cause)
            self._order = None
            return
        self._failures += 1
        self._order = None
        self._take_back(client, am_uid)
        if self._failures < _TRIES:
            _LOG.warning("The job was not drained into %s, once more: %s", order.target, cause)
            return
        self._failures = 0
        told = f"{_WITHOUT_CLUSTER} {cause}"
        raise order.error(told, job_state=state)

    def _hold_open(self, client: JobClient, am_uid: str) -> None:
        """Keep the control stream open for an order that waits for another checkpoint."""
        if time.monotonic() >= self._next_hold:
            self._next_hold = time.monotonic() + _HOLD_EVERY_S
            self._is_needed(client, am_uid)

    def _take_back(self, client: JobClient, am_uid: str) -> None:
        """Let the job end with its input, should that end."""
        builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
        try:
            builder.drainFailed(client._j_job_client, am_uid)  # noqa: SLF001
        except Py4JJavaError as error:
            _LOG.debug("the am's coordinator did not answer: %s", cause_text(error))

    def _is_needed(self, client: JobClient, am_uid: str) -> bool:
        builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
        try:
            return bool(builder.needsDrain(client._j_job_client, am_uid))  # noqa: SLF001
        except Py4JJavaError as error:
            _LOG.debug("the am's coordinator did not answer: %s", cause_text(error))
            return False  # asked again with the next status

    def close(self) -> None:
        """Remove the temporary directory. Idempotent."""
        if self._temporary is not None:
            atexit.unregister(self.close)
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None
