"""Runs entry functions without Flink: for debugging and for unit tests."""

from __future__ import annotations

from headrace.testing.faults import Fault, Kill, Pause
from headrace.testing.local import RunResult, run
from headrace.testing.worker import WorkerResult

__all__ = ["Fault", "Kill", "Pause", "RunResult", "WorkerResult", "run"]
