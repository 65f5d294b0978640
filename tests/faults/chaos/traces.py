"""What a running job is made of, and that a restart leaves nothing more than that."""

from __future__ import annotations

import os
from collections.abc import Callable, Set
from pathlib import Path

from tests.faults.chaos.jobs import Places
from tests.faults.flink.sight import files_left, members, traces_in_jvm
from tests.flink.system import (
    descendants,
    listening_ports,
    listening_sockets,
    mapped_files,
    open_files,
    threads_named,
)
from tests.segments import segments
from tests.waiting import until

__all__ = ["Growth", "Traces", "require_nothing_left"]

_CLEAN_S = 10.0
_OF_A_CHILD = 3  # threads of the JVM
_GROWTH = 24
"""Descriptors, and threads, that the JVM may have more of after a hundred kills than after the
first job: Flink's own pools grow until they are full, and something per kill would be more."""


class Traces:
    """Compares a job with itself as it is now, when it runs and all is well.

    Args:
        places: Where it leaves what.
        workers: How many processes train.
    """

    def __init__(self, places: Places, workers: int) -> None:
        self._places = places
        self._workers = workers
        self._before = _in_jvm()

    def require_none_of(self, former: Set[int], has_ended: Callable[[], bool]) -> None:
        """Soon nothing is left of former processes, nor what they had here, or the job ends."""

        def is_clean() -> bool:
            return has_ended() or not self._left(former)

        until(is_clean, "clean restart", _CLEAN_S, lambda: "\n".join(self._left(former)))

    def _left(self, former: Set[int]) -> list[str]:
        there = members(with_spares=True)
        below = descendants(_jvm())
        pids = {each.pid for each in there}
        left = [f"former process {each}" for each in there if each.pid in former]
        left += [f"other process {each.command}" for each in below if each.pid not in pids]
        children = [each for each in there if each.kind != "process"]
        directories = [p.name for p in self._places.tmp.rglob("headrace-*") if p.is_dir()]
        if len(directories) > len(children):
            left.append(f"directories {directories} of {len(children)} children")
        if len(children) > 1 + 2 * self._workers:  # one master, and a spare of each node
            left.append(f"too many children {children}")
        more = _OF_A_CHILD * sum(each.is_spare for each in children)
        for kind, found in _in_jvm().items():
            limit = len(self._before[kind]) + (more if kind == "thread" else 0)
            if kind == "state":  # each process has two files in turns
                limit = 2 * self._workers
            if len(found) > limit:
                left.append(f"{len(found)} of {kind}, {limit} before: {found}")
        return left


class Growth:
    """Compares the JVM between jobs with itself after the first one, whoever owns what it has."""

    def __init__(self) -> None:
        self._first: dict[str, int] | None = None

    def require_little(self) -> None:
        """Soon the JVM has hardly more descriptors and threads than after the first job."""
        if self._first is None:
            self._first = _totals()
            return
        limits = {kind: count + _GROWTH for kind, count in self._first.items()}

        def is_little() -> bool:
            return all(count <= limits[kind] for kind, count in _totals().items())

        until(is_little, "no growth", _CLEAN_S, lambda: f"{_totals()}, at most {limits}")


def require_nothing_left(places: Places) -> None:
    """Soon after the end of a job nothing of it is left."""

    def left() -> list[str]:
        files = [f"file {each}" for each in files_left(places.tmp)]
        processes = [f"process {each}" for each in members(with_spares=True)]
        return [*files, *processes, *sorted(traces_in_jvm(_jvm()))]

    until(lambda: not left(), "clean end", _CLEAN_S, lambda: "\n".join(left()))


def _in_jvm() -> dict[str, list[str]]:
    """Return what Headrace has in the JVM, and the ports that the JVM listens at."""
    pid = _jvm()
    return {
        "thread": threads_named(pid, "headrace"),
        "mapping": [path for path in mapped_files(pid) if "/headrace-" in path],
        "open file": [path for path in open_files(pid) if "/headrace-" in path],
        "segment": sorted(segments()),
        "state": [path for path in open_files(pid) if "/memfd:headrace-" in path],
        "socket": [path for path in listening_sockets(pid) if "/headrace-" in path],
        "port": [str(port) for port in listening_ports(pid)],
    }


def _totals() -> dict[str, int]:
    process = Path(f"/proc/{_jvm()}")
    return {
        "descriptors": len(list((process / "fd").iterdir())),
        "threads": len(list((process / "task").iterdir())),
    }


def _jvm() -> int:
    (jvm,) = (each for each in descendants(os.getpid()) if each.is_jvm)
    return jvm.pid
