"""What Flink says of the checkpoints of a job that runs, by its REST API."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

from headrace.operator import JobHandle
from tests.ports import free_ports
from tests.waiting import until

__all__ = ["CheckpointHistory"]


class CheckpointHistory:
    """The checkpoints of the one job that is submitted with `options`.

    Attributes:
        options: For `make_t_env`: where the API listens, and that its answers are new.
    """

    def __init__(self) -> None:
        (self._port,) = free_ports(1)
        self.options = {"rest_port": str(self._port), "web_refresh__interval": "50 ms"}

    def await_recovery(self, job: JobHandle, *, limit_s: float) -> str:
        """Wait until one has failed and one that began later has completed.

        Returns:
            Why the first one has failed, in Flink's words.
        """
        url = f"http://localhost:{self._port}/jobs/{job.job_id}/checkpoints"
        failures: dict[int, str] = {}
        completed: set[int] = set()

        def look() -> bool:
            with urllib.request.urlopen(url, timeout=10) as reply:
                found: list[dict[str, Any]] = json.load(reply)["history"]
            for each in found:  # ten at most: those of earlier looks may be gone
                if each["status"] == "FAILED":
                    failures[each["id"]] = each["failure_message"] or ""
                elif each["status"] == "COMPLETED":
                    completed.add(each["id"])
            return bool(failures) and max(completed, default=0) > min(failures)

        until(
            look,
            "checkpoint that completes behind one that fails",
            limit_s,
            lambda: f"failed: {failures}, completed: {sorted(completed)}",
        )
        return failures[min(failures)]
