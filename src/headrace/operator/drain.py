"""Ends a Flink job whose ML cluster has ended while an unbounded input goes on."""

from __future__ import annotations

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

__all__ = ["Drain"]

_LOG = logging.getLogger(__name__)
_SAVEPOINT_DIR = "execution.checkpointing.savepoint-dir"


class Drain:
    """Stops a job with a drain: every operator finishes, every sink commits.

    Flink does that only together with a savepoint, which nobody needs here. It goes to a
    temporary directory on the embedded cluster, else to the one that Flink is configured with;
    without any the job is cancelled.

    Thread model: one thread; `start` does not wait for the job's end.
    """

    def __init__(self, flink: FlinkEnvironment) -> None:
        self._flink = flink
        self._is_started = False
        self._temporary: Path | None = None

    def start(self, client: JobClient) -> None:
        """Ask Flink to stop the job. Idempotent."""
        if self._is_started:
            return
        self._is_started = True
        target = self._target()
        if target is None:
            _LOG.warning(
                "The ML cluster has ended before its unbounded input; the job is cancelled. "
                "Set "
                "%s to a directory to have it drained instead, so that its sinks commit.",
                _SAVEPOINT_DIR,
            )
            client.cancel()
            return
        _LOG.info("The ML cluster has ended before its unbounded input; draining the job")
        j_format = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.NATIVE
        j_client: Any = client._j_job_client  # noqa: SLF001 (no public way to the format)
        try:
            j_client.stopWithSavepoint(True, target, j_format)
        except Py4JJavaError as error:  # the job has ended by itself meanwhile
            _LOG.info("The job needs no drain: %s", cause_text(error))

    def close(self) -> None:
        """Remove the temporary directory. Idempotent."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def _target(self) -> str | None:
        configured = self._flink.option(_SAVEPOINT_DIR)
        if configured is not None or not self._flink.is_embedded:
            return configured
        self._temporary = Path(tempfile.mkdtemp(prefix="headrace-drain-"))
        return self._temporary.as_uri()
