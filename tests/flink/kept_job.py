"""What is seen of a training with a state on a standalone cluster: `programs/keep.py`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable

from tests.faults.chaos.jobs import Places
from tests.faults.flink.sight import members
from tests.waiting import until

from .system import Process, descendants

__all__ = [
    "KEEP",
    "NARROW",
    "await_checkpoint",
    "await_kept",
    "gone",
    "processes",
    "running",
    "workers",
]

KEEP = ("-m", "tests.flink.programs.keep")
NARROW = {  # few rows are under way, so that a barrier does not wait behind all of them
    "taskmanager.memory.segment-size": "4kb",
    "taskmanager.network.memory.buffers-per-channel": "2",
    "taskmanager.network.memory.floating-buffers-per-gate": "2",
}
_START_S = 90.0


def await_kept(places: Places, explain: Callable[[], str]) -> None:
    """Wait until both workers have made steps, and then for a checkpoint.

    Args:
        places: Where the job leaves what.
        explain: Called for more text when it does not come.
    """
    until(lambda: _have_stepped(places), "steps of both workers", _START_S, explain)
    await_checkpoint(places, explain)


def await_checkpoint(places: Places, explain: Callable[[], str]) -> None:
    """Wait until one more has completed; the arguments are those of `await_kept`."""
    before = _checkpoints(places)
    until(lambda: _checkpoints(places) - before, "a checkpoint", _START_S, explain)


def _have_stepped(places: Places) -> bool:
    return all(
        any(path.stat().st_size for path in places.steps.glob(f"{index}-*"))
        for index in range(2)
    )


def _checkpoints(places: Places) -> set[str]:
    return {path.parent.name for path in places.checkpoints.glob("*/chk-*/_metadata")}


def processes(manager: subprocess.Popen[bytes]) -> list[Process]:
    """All of Headrace's below a TaskManager."""
    return [each for each in descendants(manager.pid) if "headrace." in each.command]


def workers(manager: subprocess.Popen[bytes]) -> list[Process]:
    """Algorithm processes below it, but those that stand by for another attempt."""
    return [
        each
        for each in processes(manager)
        if "framework.runner" in each.command and "--ahead" not in each.command
    ]


def gone(those: list[Process]) -> bool:
    """Whether none of them lives."""
    return not any(each.is_alive for each in those)


def running(managers: Iterable[subprocess.Popen[bytes]]) -> list[Process]:
    """Master, nodes and algorithm processes of the present attempt; none that stands by.

    For TaskManagers on this host.
    """
    roots = [each.pid for each in managers]
    found = members(*roots)
    wanted = {each.pid for each in found if each.kind == "master"}
    for each in found:
        if each.index is not None:
            wanted |= {each.pid, each.parent}
    return [each for root in roots for each in descendants(root) if each.pid in wanted]
