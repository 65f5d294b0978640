"""Flink's REST API on the embedded cluster: checkpoints on request, other parallelism."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.request
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

    def begin_checkpoint(self) -> None:
        """Ask for a checkpoint; it has not begun yet when this returns."""
        self._send("POST", "/checkpoints", {"checkpointType": "CONFIGURED"})

    def await_checkpoints(self, count: int, *, limit_s: float) -> list[dict[str, Any]]:
        """Wait until so many checkpoints of the job have completed.

        It looks four times a second, since each answer costs the JVM time.

        Returns:
            What Flink says of them, the latest first, at most ten.

        Raises:
            RuntimeError: One has failed.
            TimeoutError: There were fewer after `limit_s`.
        """
        deadline = time.monotonic() + limit_s
        while True:
            found = self._send("GET", "/checkpoints")
            if found["counts"]["failed"]:
                failed = found["latest"]["failed"]
                msg = f"checkpoint {failed['id']} has failed: {failed.get('failure_message')}"
                raise RuntimeError(msg)
            if found["counts"]["completed"] >= count:
                done = [each for each in found["history"] if each["status"] == "COMPLETED"]
                return sorted(done, key=lambda each: each["id"], reverse=True)
            if time.monotonic() > deadline:
                msg = f"{found['counts']['completed']} of {count} checkpoints in {limit_s} s"
                raise TimeoutError(msg)
            threading.Event().wait(_LOOK_EVERY_S)

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

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(  # noqa: S310 - own URL
            self._url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=_ANSWER_S) as reply:  # noqa: S310
            return json.loads(reply.read() or b"null")
