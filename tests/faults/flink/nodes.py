"""The algorithm processes of a job by the name of their node."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from tests.flink.system import Process, descendants

__all__ = ["Running", "processes_by_node"]

_SPEC = "HEADRACE_PROCESS_SPEC="


@dataclass(frozen=True, slots=True)
class Running:
    """A living algorithm process.

    Attributes:
        process: The process.
        attempt: Attempt that it belongs to.
        life: Its life in that attempt.
    """

    process: Process
    attempt: int
    life: int


def processes_by_node() -> dict[str, Running]:
    """Return the algorithm processes below this one, TensorBoard's too."""
    found = {}
    for process in descendants(os.getpid()):
        if "headrace.framework.runner" not in process.command:
            continue
        spec = _spec_of(process)
        if spec is not None:
            name = f"{spec['role']}-{spec['index']}"
            found[name] = Running(process, int(spec["attempt"]), int(spec["life"]))
    return found


def _spec_of(process: Process) -> dict[str, str] | None:
    for line in process.environment.split("\0"):
        if line.startswith(_SPEC):
            try:
                spec: dict[str, str] = json.loads(Path(line.removeprefix(_SPEC)).read_text())
            except (FileNotFoundError, json.JSONDecodeError):
                return None
            return spec
    return None
