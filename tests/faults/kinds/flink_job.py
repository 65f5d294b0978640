"""A job as Flink's REST API tells of it."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

from tests.flink.standalone import Standalone

__all__ = ["FlinkJob"]


class FlinkJob:
    """One job with a source `numbers` of one subtask.

    Args:
        cluster: Where it runs.
        job_id: 32 hexadecimal digits.
    """

    def __init__(self, cluster: Standalone, job_id: str) -> None:
        self._cluster = cluster
        self.job_id = job_id

    def endpoints(self) -> set[tuple[str, int]]:
        """Return host and data port of the TaskManagers that have a subtask of it."""
        found = [
            str(subtask["endpoint"]).rpartition(":")
            for vertex in self._vertices()
            for subtask in self._ask(f"/vertices/{vertex['id']}")["subtasks"]
        ]
        return {(host, int(port)) for host, _, port in found}

    def runs_since_s(self) -> float | None:
        """Return the monotonic instant at which its source began to run; None if not all runs.

        Flink has noted it by the wall clock, in milliseconds.
        """
        vertices = self._vertices()  # none as long as a JobManager begins with it
        running = [each["tasks"]["RUNNING"] == each["parallelism"] for each in vertices]
        if not running or not all(running):
            return None
        (source,) = (each["id"] for each in vertices if "Source: numbers" in each["name"])
        (subtask,) = self._ask(f"/vertices/{source}/subtasktimes")["subtasks"]
        shift = time.monotonic() - datetime.now(timezone.utc).timestamp()
        return float(subtask["timestamps"]["RUNNING"]) / 1000 + shift

    def _vertices(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._ask("")["vertices"]
        return found

    def _ask(self, path: str) -> Any:
        return self._cluster.ask(f"jobs/{self.job_id}{path}")
