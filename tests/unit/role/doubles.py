"""Doubles for the process's surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.framework.process import ProcessSpec


class FakeClock:
    """Monotonic seconds that pass when the test says so, or by `step_s` at every look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now = 1000.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


class FakeLink:
    """Keeps what was said to the node."""

    def __init__(self) -> None:
        self.reports: list[tuple[dict[str, float], int, int]] = []
        self.published: dict[str, str] = {}
        self.stop_reasons: list[str] = []
        self.savepoint_wishes: list[str] = []

    def report(self, values: Mapping[str, float], rows_in: int, rows_out: int) -> None:
        self.reports.append((dict(values), rows_in, rows_out))

    def publish(self, key: str, value: str) -> None:
        self.published[key] = value

    def lookup(self, key: str, timeout_s: float) -> str:
        return self.published[key]

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        (self.savepoint_wishes if with_savepoint else self.stop_reasons).append(reason)


def spec_in(directory: Path, **changes: Any) -> ProcessSpec:
    """What worker 1 of 2 is told at its start, with `directory` as its work directory."""
    facts = {
        "job_name": "delays",
        "role": "worker",
        "index": 1,
        "parallelism": 2,
        "attempt": 1,
        "cluster": {"worker": ("h0", "h1"), "ps": ("h0",)},
        "host": "h1",
        "work_dir": str(directory),
        "payload_path": "",
    }
    return ProcessSpec(**{**facts, **changes})
