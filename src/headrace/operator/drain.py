"""Ends a Flink job whose ML cluster has ended while an unbounded input goes on."""

from __future__ import annotations

import atexit
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from py4j.protocol import Py4JJavaError
from pyflink.common import JobClient
from pyflink.java_gateway import get_gateway

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.failure import cause_text
from headrace.operator.flink_options import SAVEPOINT_DIR

__all__ = ["Drain"]

_LOG = logging.getLogger(__name__)


class Drain:
    """Stops a job with a drain: every operator finishes, every sink commits.

    Flink does that only together with a savepoint, which nobody needs here. It goes to the
    directory that Flink is configured with when this is made, else on the embedded cluster to
    a temporary one, which ends with the job or the program; without any the job is cancelled.

    Thread model: one thread; `start_if_needed` does not wait for the job's end.
    """

    def __init__(self, flink: FlinkEnvironment) -> None:
        self._is_started = False
        self._temporary: Path | None = None
        self._target = flink.option(SAVEPOINT_DIR)
        if self._target is None and flink.is_embedded:
            self._temporary = Path(tempfile.mkdtemp(prefix="headrace-drain-"))
            self._target = self._temporary.as_uri()
            atexit.register(self.close)

    def start_if_needed(self, client: JobClient, am_uid: str) -> None:
        """Ask Flink to stop the job, if an input goes on. Idempotent."""
        if self._is_started or not self._is_needed(client, am_uid):
            return
        self._is_started = True
        if self._target is None:
            _LOG.warning(
                "The ML cluster has ended before its unbounded input; the job is cancelled and "
                "wait() raises. Set %s to a directory to have it drained, with its sinks.",
                SAVEPOINT_DIR,
            )
            client.cancel()
            return
        _LOG.info("The ML cluster has ended before its unbounded input; draining the job")
        j_format = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.NATIVE
        j_client: Any = client._j_job_client  # noqa: SLF001 (no public way to the format)
        try:
            j_client.stopWithSavepoint(True, self._target, j_format)
        except Py4JJavaError as error:  # the job has ended by itself meanwhile
            _LOG.info("The job needs no drain: %s", cause_text(error))

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
