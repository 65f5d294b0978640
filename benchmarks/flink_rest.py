"""Flink's REST API on the embedded cluster: checkpoints on request, other parallelism."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from typing import Any

__all__ = ["FlinkJob", "free_port"]

_ANSWER_S = 10.0
_LOOK_EVERY_S = 0.25


def free_port() -> int:
    """Return a TCP port that nobody listens on now."""
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        port: int = tried.getsockname()[1]
    return port


class FlinkJob:
    """One job.

    Args:
        port: Of the REST API, Flink's option `rest.port`.
        job_id: 32 hexadecimal digits.
    """

    def __init__(self, port: int, job_id: str) -> None:
        self._url = f"http://localhost:{port}/jobs/{job_id}"
        self._before = {"completed": 0, "failed": 0}
        self._asked = 0

    def await_no_checkpoint(self, *, limit_s: float) -> None:
        """Wait until none is under way, whoever began it; those so far do not count."""
        found = self._look(lambda counts: counts["in_progress"] == 0, limit_s)
        self._before = found["counts"]
        self._asked = 0

    def begin_checkpoint(self) -> None:
        """Ask for a checkpoint; it has not begun yet when this returns."""
        self._send("POST", "/checkpoints", {"checkpointType": "CONFIGURED"})
        self._asked += 1

    def await_checkpoints(self, *, limit_s: float) -> list[dict[str, Any]]:
        """Wait until all that were asked for have completed.

        Returns:
            What Flink says of the latest ones, the very latest first, at most ten.

        Raises:
            RuntimeError: One has failed.
            TimeoutError: Not all have after `limit_s`.
        """
        count = self._before["completed"] + self._asked
        found = self._look(lambda counts: counts["completed"] >= count, limit_s)
        done = [each for each in found["history"] if each["status"] == "COMPLETED"]
        return sorted(done, key=lambda each: each["id"], reverse=True)

    def set_parallelism(self, parallelism: int, *, fixed: str) -> None:
        """Ask the adaptive scheduler for another parallelism of all tasks but some.

        Args:
            parallelism: Of each task but those.
            fixed: Regular expression for what is in the names of tasks that stay as they are.
        """
        bounds = self._send("GET", "/resource-requirements")
        for vertex in self._send("GET", "")["vertices"]:
            if not re.search(fixed, vertex["name"]):
                both = {"lowerBound": parallelism, "upperBound": parallelism}
                bounds[vertex["id"]]["parallelism"] = both
        self._send("PUT", "/resource-requirements", bounds)

    def _look(self, is_enough: Callable[[dict[str, int]], bool], limit_s: float) -> Any:
        """Look four times a second, since each answer costs the JVM time."""
        deadline = time.monotonic() + limit_s
        while True:
            found = self._send("GET", "/checkpoints")
            counts = found["counts"]
            if is_enough(counts):
                return found
            if self._asked and counts["failed"] > self._before["failed"]:
                msg = f"a checkpoint has failed: {found['latest']['failed'] or counts}"
                raise RuntimeError(msg)
            if time.monotonic() > deadline:
                msg = f"after {limit_s} s there are no more checkpoints than {counts}"
                raise TimeoutError(msg)
            threading.Event().wait(_LOOK_EVERY_S)

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - own URL
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as reply:  # noqa: S310
            return json.loads(reply.read() or b"null")
