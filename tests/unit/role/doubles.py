"""Doubles for the process's surroundings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.config import TimeoutConfig


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

    def report(self, values: Mapping[str, float], rows_in: int, rows_out: int) -> None:
        self.reports.append((dict(values), rows_in, rows_out))

    def publish(self, key: str, value: str) -> None:
        self.published[key] = value

    def lookup(self, key: str, timeout_s: float) -> str:
        return self.published[key]

    def stop_job(self, reason: str) -> None:
        self.stop_reasons.append(reason)


@dataclass(kw_only=True)
class FakeSpec:
    """What a process is told at its start."""

    work_dir: str
    job_name: str = "delays"
    role: str = "worker"
    index: int = 1
    parallelism: int = 2
    attempt: int = 1
    cluster: Mapping[str, tuple[str, ...]] = field(
        default_factory=lambda: {"worker": ("h0", "h1"), "ps": ("h0",)}
    )
    queue_socket: str | None = None
    checkpoint_dir: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    timeouts: TimeoutConfig = field(default_factory=TimeoutConfig)


def spec_in(directory: Path, **changes: Any) -> FakeSpec:
    """A spec whose work directory is `directory`."""
    return FakeSpec(work_dir=str(directory), **changes)
