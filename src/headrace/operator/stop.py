"""The stop of a Flink job with a savepoint, from the order to what came of it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyflink.common import JobClient
from pyflink.java_gateway import get_gateway

from headrace.errors import ConfigError, StopError, UsageError
from headrace.framework.status import JobStatus
from headrace.operator.failure import cause_text

__all__ = [
    "SavepointStop",
    "has_ended",
    "hold",
    "release",
    "savepoint_uri",
    "state_of",
    "wished_place",
]

_LOG = logging.getLogger(__name__)
_HOLD_S = 60
_REQUEST_MS = 10_000


class SavepointStop:
    """One order to stop, which Flink carries out once; it can be waited for again and again.

    Thread model: one thread.

    Attributes:
        target: URI of the directory in which Flink makes the savepoint.
        drains: Whether every operator is ended before the savepoint, as at the end of input.
        is_wished: Whether a process has asked for it, and not the caller.
        j_future: Flink's answer to come; of an order that Flink did not take, why not.
    """

    def __init__(
        self,
        j_client: Any,
        *,
        job_name: str,
        target: str,
        drains: bool,
        is_kept: bool = True,
        is_wished: bool = False,
    ) -> None:
        """Give the order; does not wait.

        Args:
            j_client: Flink's client of the job.
            job_name: Its name.
            target: As the attribute.
            drains: As the attribute.
            is_kept: Whether somebody restores the savepoint; one that nobody needs is written
                in the form that costs less.
            is_wished: As the attribute.
        """
        self.target = target
        self.drains = drains
        self.is_wished = is_wished
        self._job_name = job_name
        jvm = get_gateway().jvm
        formats = jvm.org.apache.flink.core.execution.SavepointFormatType
        j_format = formats.CANONICAL if is_kept else formats.NATIVE
        try:
            self.j_future = j_client.stopWithSavepoint(drains, target, j_format)
        except Py4JJavaError as exc:  # its cluster is just shutting down, for example
            j_futures = jvm.java.util.concurrent.CompletableFuture
            self.j_future = j_futures.failedFuture(exc.java_exception)

    def is_same(self, target: str, *, drains: bool) -> bool:
        """Return whether another order would be this one again."""
        return (target, drains) == (self.target, self.drains)

    def other_error(self) -> UsageError:
        """Return the error for another order, while this one is carried out."""
        return UsageError(
            f"Job {self._job_name!r} is being stopped with a savepoint in {self.target} "
            f"(drain={self.drains}); call stop with the same to wait for that"
        )

    def is_answered(self, pause_ms: int) -> bool:
        """Wait `pause_ms` at most for Flink's answer; return whether it is there."""
        return has_ended(self.j_future, pause_ms)

    def savepoint(self) -> str:
        """Return the URI of the savepoint, once `j_future` is done.

        Raises:
            Py4JJavaError: There is none.
        """
        return str(self.j_future.get())

    def error(self, cause: str, *, job_state: str, savepoint: str | None = None) -> StopError:
        """Return the error that this stop has not gone well."""
        return StopError(
            job_name=self._job_name,
            target=self.target,
            cause=cause,
            savepoint=savepoint,
            job_state=job_state,
        )

    def require_finished(
        self, status: JobStatus, fed_roles: frozenset[str], savepoint: str
    ) -> None:
        """Refuse a drain that has ended functions of these roles before they had returned.

        Raises:
            StopError: It has; names the nodes, and has the savepoint.
        """
        nodes = [
            name
            for name, node in status.nodes.items()
            if name.rpartition("-")[0] in fed_roles and node.state != "finished"
        ]
        if self.drains and nodes:
            cause = _UNFINISHED.format(", ".join(nodes))
            raise self.error(cause, job_state="FINISHED", savepoint=savepoint)


def has_ended(j_future: Any, pause_ms: int) -> bool:
    """Wait `pause_ms` at most; return whether a future of Flink's is done, well or not."""
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    return bool(builder.hasEnded(j_future, pause_ms))


def hold(j_client: Any, am_uid: str) -> float:
    """Keep a job from ending by itself while it is stopped, for a minute.

    Returns:
        Seconds until the order may be given: 0, or where the ML cluster has ended by itself,
        until its tasks are closed.
    """
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    try:
        return float(builder.hold(j_client, am_uid, _HOLD_S)) / 1000.0
    except Py4JJavaError as exc:
        _LOG.debug("the am's coordinator did not answer: %s", cause_text(exc))
        return 0.0  # what Flink says to the stop is told


def release(j_client: Any, am_uid: str) -> None:
    """Take `hold` back. Where nobody answers there is nothing to hold, or it runs out."""
    try:
        builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
        builder.release(j_client, am_uid)
    except Py4JError as exc:
        _LOG.debug("the am's coordinator did not answer: %s", cause_text(exc))


def savepoint_uri(directory: str | Path) -> str:
    """Return where a savepoint goes, as Flink names it: paths of this host become file URIs.

    Raises:
        ConfigError: It is empty.
    """
    text = str(directory)
    if not text:
        msg = "savepoint='' must name a directory: a path, or a URI of one of Flink's systems"
        raise ConfigError(msg)
    return text if "://" in text else Path(text).absolute().as_uri()


def wished_place(directory: str | Path | None, wish: str) -> str:
    """Return where the savepoint goes that a process asks for; `wish` says who, and why.

    Raises:
        UsageError: There is no directory for it.
        ConfigError: As `savepoint_uri`.
    """
    if directory is None:
        msg = (
            f"{wish}, with a savepoint, and no directory for one is set. The job goes on. "
            "Call stop(savepoint=directory), give wait() a savepoint=directory, or set "
            "execution.checkpointing.savepoint-dir"
        )
        raise UsageError(msg)
    return savepoint_uri(directory)


def state_of(client: JobClient) -> str | None:
    """Return the state of Flink's job, such as "RUNNING"; None if Flink does not tell now.

    Blocks for at most 10 s.
    """
    builder = get_gateway().jvm.org.headrace.operator.ClusterBuilder
    try:
        return str(builder.state(client._j_job_client, _REQUEST_MS))  # noqa: SLF001
    except Py4JJavaError as exc:
        _LOG.debug("Flink did not tell the job's state: %s", cause_text(exc))
        return None


_UNFINISHED = (
    "{} had to be ended before the entry function was done: it may have saved nothing, and the "
    "savepoint lacks the state of those rows. It gave no sign for `timeouts.stop_timeout_s` "
    "(`timeouts.process_start_timeout_s` before the function is called): raise that, or call "
    "ctx.report."
)
