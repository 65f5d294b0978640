"""Finding Headrace's processes below this test session."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["masters", "parent_of"]


def masters() -> list[int]:
    """Return the pids of the master processes of this session's jobs."""
    return [pid for pid in _family() if b"headrace.framework.master" in _command(pid)]


def parent_of(pid: int) -> int:
    """Return the parent: of an algorithm process, its node."""
    return int(_stat(pid)[1])


def _family() -> list[int]:
    """Return this process' living descendants."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        stat = _stat(int(entry.name))
        if stat and stat[0] != "Z":
            parents[int(entry.name)] = int(stat[1])
    family = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family - {os.getpid()})


def _stat(pid: int) -> list[str]:
    """Return state, parent and so on; empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
