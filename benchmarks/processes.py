"""What the kernel says about a process: its memory, its processor time, its children."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

__all__ = [
    "cpu_s",
    "descendants",
    "is_alive",
    "mapped_files",
    "parent_of",
    "resident_mb",
    "wait_until",
]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Return the resident size of a process, in MB (10^6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    msg = f"process {pid} has no resident size: it has ended"
    raise ProcessLookupError(msg)


def cpu_s(pid: int) -> float:
    """Return the processor time that a process has used so far, in seconds."""
    fields = _stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def mapped_files(pid: int) -> set[str]:
    """Return the names of the files that a process has mapped: its libraries, above all."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) > 5}


def descendants(pid: int) -> dict[int, str]:
    """Return the processes below `pid` with their command lines."""
    parents = {int(each.name): _parent(int(each.name)) for each in Path("/proc").glob("[0-9]*")}
    found: dict[int, str] = {}
    family = {pid}
    while family:
        family = {child for child, parent in parents.items() if parent in family}
        found |= {child: _command_line(child) for child in family}
    return found


def parent_of(pid: int) -> int:
    """Return the pid of the parent of a process."""
    return int(_stat_fields(pid)[1])


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return _stat_fields(pid)[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition: Callable[[], bool], *, limit_s: float, what: str) -> float:
    """Wait until `condition` holds, looking each 5 ms; return the seconds it took.

    Raises:
        TimeoutError: It did not within `limit_s`.
    """
    begin = time.monotonic()
    pause = Event()
    while not condition():
        if time.monotonic() > begin + limit_s:
            msg = f"{what} did not happen within {limit_s} s"
            raise TimeoutError(msg)
        pause.wait(0.005)
    return time.monotonic() - begin


def _parent(pid: int) -> int | None:
    try:
        return parent_of(pid)
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return None


def _command_line(pid: int) -> str:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return command.replace(b"\0", b" ").decode(errors="replace").strip()


def _stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/pid/stat behind the name: state, parent, ..."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return text[text.rindex(")") + 2 :].split()
