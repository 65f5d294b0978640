"""What can be seen of a job from outside: its processes, its files, Flink's REST API."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.flink.system import listening_sockets, mapped_files, open_files, threads_named
from tests.segments import segments

__all__ = ["JobView", "Member", "files_left", "members", "traces_in_jvm"]

_MODULES = {
    "headrace.framework.master": "master",
    "headrace.framework.node": "node",
    "headrace.framework.runner": "process",
}
_SPEC = b"HEADRACE_PROCESS_SPEC="


@dataclass(frozen=True, slots=True)
class Member:
    """A living process of a cluster.

    Attributes:
        kind: "master", "node" or "process".
        pid: Its pid.
        parent: Pid of its parent.
        index: For a process, the number of its worker; None if it cannot be told (yet).
        is_spare: Whether it is a process that was started ahead and has no spec yet, or the
            node above such a one (ADR 0120): nothing of the job runs in it.
    """

    kind: str
    pid: int
    parent: int
    index: int | None
    is_spare: bool = False


def descendants(*roots: int) -> dict[int, int]:
    """Return the living processes below these, with the parent of each."""
    parents = {}
    for entry in os.listdir("/proc"):  # noqa: PTH208 - called often, pathlib is slow here
        if entry.isdecimal() and (stat := _read(int(entry), "stat")):
            state, parent = stat[stat.rindex(b")") + 2 :].split(b" ", 2)[:2]
            if state not in b"ZX":
                parents[int(entry)] = int(parent)
    found: dict[int, int] = {}
    family = set(roots)
    while family:
        family = {pid for pid, parent in parents.items() if parent in family} - found.keys()
        found |= {pid: parents[pid] for pid in family}
    return found


def members(*roots: int, with_spares: bool = False) -> list[Member]:
    """Return the members of clusters below these processes, this one by default.

    A spare node looks like any other until its process has been started.
    """
    below = descendants(*(roots or (os.getpid(),)))
    kinds = {pid: _kind(pid) for pid in below}
    spares = {pid for pid, kind in kinds.items() if kind == "process" and _waits(pid)}
    spares |= {
        pid
        for pid, kind in kinds.items()
        if kind == "node"
        and (children := {child for child, parent in below.items() if parent == pid})
        and children <= spares
    }
    found = []
    for pid, parent in below.items():
        kind = kinds[pid]
        if kind is None or (kind == "node" and kinds.get(parent) == "node"):
            continue  # the second one is a child of a node that is just being made
        if pid not in spares or with_spares:
            index = _index(pid) if kind == "process" else None
            found.append(Member(kind, pid, parent, index, pid in spares))
    return found


def files_left(*folders: Path) -> list[str]:
    """Return what clusters have left below these folders and in shared memory."""
    left = [*segments()]
    for folder in folders:
        for parent, directories, files in os.walk(folder):  # does not mind what Flink removes
            names = [*directories, *files]
            left += [f"{parent}/{name}" for name in names if name.startswith("headrace-")]
    return sorted(left)


def traces_in_jvm(pid: int) -> set[str]:
    """Return what clusters have left in a JVM: threads, mapped and open files, sockets."""
    files = {
        "mapping": mapped_files(pid),
        "open file": open_files(pid),
        "socket": listening_sockets(pid),
    }
    found = {f"thread {name}" for name in threads_named(pid, "headrace")}
    for kind, paths in files.items():
        found |= {f"{kind} {path}" for path in paths if "/headrace-" in path}
    return {f"{each} in JVM {pid}" for each in found}


@dataclass(frozen=True, slots=True)
class JobView:
    """One job in Flink's REST API; answers of a cluster that is gone are empty.

    Attributes:
        port: Port of the API.
        job_id: The job.
    """

    port: int
    job_id: str

    def completed_checkpoints(self) -> int:
        """How many checkpoints have completed."""
        return int(self._get("/checkpoints").get("counts", {}).get("completed", 0))

    def failures(self) -> list[str]:
        """What Flink has restarted the job for, or failed it, newest first."""
        history = self._get("/exceptions").get("exceptionHistory", {})
        return [str(each["stacktrace"]) for each in history.get("entries", ())]

    def rows_in(self) -> int:
        """How many rows the workers' operators have taken."""
        total = 0.0
        for vertex in self._get("").get("vertices", ()):
            if "worker" in vertex["name"]:
                for subtask in range(vertex["parallelism"]):
                    total += self._metric(f"/vertices/{vertex['id']}/subtasks/{subtask}")
        return int(total)

    def _metric(self, path: str) -> float:
        listed = self._get(f"{path}/metrics")
        names = [each["id"] for each in listed if each["id"].endswith("headrace.rows_in")]
        if not names:
            return 0.0
        return float(self._get(f"{path}/metrics?get={names[0]}")[0]["value"])

    def _get(self, path: str) -> Any:
        url = f"http://localhost:{self.port}/jobs/{self.job_id}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as reply:
                return json.load(reply)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return {}


def _kind(pid: int) -> str | None:
    arguments = _arguments(pid)
    if b"-m" not in arguments[:-1]:
        return None
    return _MODULES.get(arguments[arguments.index(b"-m") + 1].decode())


def _waits(pid: int) -> bool:
    """Whether a process was started ahead, and nobody has written its spec yet."""
    path = _spec_path(pid) if b"--ahead" in _arguments(pid) else None
    return path is not None and not path.exists()


def _index(pid: int) -> int | None:
    try:
        path = _spec_path(pid)
        return None if path is None else int(json.loads(path.read_text())["index"])
    except (FileNotFoundError, json.JSONDecodeError):
        return None


def _spec_path(pid: int) -> Path | None:
    for line in _read(pid, "environ").split(b"\0"):
        if line.startswith(_SPEC):
            return Path(line[len(_SPEC) :].decode())
    return None


def _arguments(pid: int) -> list[bytes]:
    return _read(pid, "cmdline").split(b"\0")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""
