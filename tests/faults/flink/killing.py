"""A signal to the process of one node, kill -9 by default, and what is seen of the others."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from headrace.operator import JobHandle
from tests.faults.flink.nodes import Running, processes_by_node
from tests.faults.flink.sight import files_left
from tests.flink.system import Process, descendants
from tests.flink.tensorflow_jobs import START_S
from tests.waiting import until

__all__ = [
    "cancelled_on_failure",
    "expect_next_life",
    "kill",
    "processes_of_jobs",
    "reported",
    "require_nothing_left",
]

_CLEAN_S = 5.0


@contextmanager
def cancelled_on_failure(job: JobHandle) -> Iterator[None]:
    """Cancel the job when the block fails."""
    try:
        yield
    except BaseException:
        job.cancel()
        raise


def processes_of_jobs() -> list[Process]:
    """What this process' JVM has started, and what that has started."""
    (jvm,) = (each for each in descendants(os.getpid()) if each.is_jvm)
    return descendants(jvm.pid)


def reported(job: JobHandle, node: str, name: str) -> float:
    """The latest value that a node has reported, 0 before the first."""
    nodes = job.status().nodes
    return nodes[node].report.get(name, 0.0) if node in nodes else 0.0


def kill(name: str, number: signal.Signals = signal.SIGKILL) -> dict[str, Running]:
    """Kill or freeze the process of a node; return the processes that there were."""
    before = processes_by_node()
    os.kill(before[name].process.pid, number)
    return before


def expect_next_life(name: str, before: dict[str, Running]) -> None:
    """It is started again, alone."""
    until(
        lambda: (
            (now := processes_by_node().get(name)) is not None
            and (now.attempt, now.life) == (before[name].attempt, before[name].life + 1)
        ),
        f"another life of {name}",
        START_S,
        lambda: str(processes_by_node()),
    )
    now = processes_by_node()
    assert {k: v for k, v in now.items() if k != name} == {
        k: v for k, v in before.items() if k != name
    }


def require_nothing_left(seen: Iterable[Process]) -> None:
    """Soon after the end of their jobs, neither these processes nor a file are left."""
    until(lambda: not [e for e in seen if e.is_alive], "the end of every process", _CLEAN_S)
    until(lambda: not files_left(), "the end of every file", _CLEAN_S)
