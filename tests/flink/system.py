"""What the tests read about other processes from the operating system."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_LISTENING = "0A"  # state of a TCP socket
_ACCEPTING = "00010000"  # flag of a Unix socket


@dataclass(frozen=True, slots=True, order=True)
class Process:
    """One process; `started` tells it from a later one of the same number."""

    pid: int
    started: int

    @property
    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        fields = _stat(self.pid)
        return fields is not None and int(fields[19]) == self.started and fields[0] not in "ZX"

    @property
    def command(self) -> str:
        """Its command line, arguments joined by blanks; empty if it is gone."""
        return _text(self.pid, "cmdline").replace("\0", " ").strip()

    @property
    def is_jvm(self) -> bool:
        """Whether its program is Java."""
        return Path(self.command.partition(" ")[0]).name == "java"

    @property
    def environment(self) -> str:
        """Its environment as it was started with; empty if it is gone."""
        return _text(self.pid, "environ")


def descendants(pid: int) -> list[Process]:
    """Return every living process below `pid`."""
    children: dict[int, list[Process]] = {}
    for entry in _PROC.glob("[0-9]*"):
        fields = _stat(int(entry.name))
        if fields is not None and fields[0] not in "ZX":
            child = Process(int(entry.name), int(fields[19]))
            children.setdefault(int(fields[1]), []).append(child)
    found: list[Process] = []
    family = [pid]
    while family:
        below = children.get(family.pop(), [])
        found += below
        family += [each.pid for each in below]
    return sorted(found)


def threads_named(pid: int, start: str) -> list[str]:
    """Return the names of the threads of `pid` that begin with `start` (15 characters each)."""
    tasks = [path.name for path in _PROC.glob(f"{pid}/task/*")]
    names = (_text(pid, f"task/{task}/comm").strip() for task in tasks)
    return sorted(name for name in names if name.startswith(start))


def open_files(pid: int) -> list[str]:
    """Return what the descriptors of `pid` stand for; empty if it is gone."""
    try:
        return [_target(descriptor) for descriptor in (_PROC / str(pid) / "fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def mapped_files(pid: int) -> set[str]:
    """Return the paths of the files that `pid` has mapped; " (deleted)" marks unlinked ones."""
    lines = _text(pid, "maps").splitlines()
    return {line.split(maxsplit=5)[5] for line in lines if len(line.split(maxsplit=5)) == 6}


def listening_ports(pid: int) -> list[int]:
    """Return the TCP ports that `pid` listens on."""
    own = set(open_files(pid))
    ports = []
    for table in ("tcp", "tcp6"):
        for line in _text(pid, f"net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENING and f"socket:[{fields[9]}]" in own:
                ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports


def listening_sockets(pid: int) -> list[str]:
    """Return the paths of the Unix sockets that `pid` listens on."""
    own = set(open_files(pid))
    lines = (line.split() for line in _text(pid, "net/unix").splitlines()[1:])
    return [
        each[7]
        for each in lines
        if len(each) == 8 and each[3] == _ACCEPTING and f"socket:[{each[6]}]" in own
    ]


def _target(descriptor: Path) -> str:
    try:
        return str(descriptor.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def _stat(pid: int) -> list[str] | None:
    """Return the fields of /proc/PID/stat from the state on."""
    text = _text(pid, "stat")
    return text.rpartition(")")[2].split() or None


def _text(pid: int, name: str) -> str:
    try:
        return (_PROC / str(pid) / name).read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""
