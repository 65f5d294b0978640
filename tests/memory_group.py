"""A control group with a memory limit, in which the kernel ends whoever takes too much."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import until

__all__ = ["NoMemoryGroupError", "killed_in", "memory_group"]

_FOLDER = Path("/sys/fs/cgroup")
_LIMIT_BYTES = 64_000_000


class NoMemoryGroupError(Exception):
    """This machine does not let the tests make such a group."""


@contextmanager
def memory_group(name: str) -> Iterator[Path]:
    """Make a group of 64 MB that a process joins by its `cgroup.procs`; needs the right to.

    What a process had before it joined does not count.

    Args:
        name: Of the group; nobody else's.

    Raises:
        NoMemoryGroupError: It cannot be made here; the text says why.
    """
    version_1 = _FOLDER / "memory"
    group = (version_1 if version_1.exists() else _FOLDER) / f"headrace-{name}"
    limit = group / ("memory.limit_in_bytes" if version_1.exists() else "memory.max")
    try:
        group.mkdir()
    except OSError as exc:
        msg = f"no control group can be made here: {exc}"
        raise NoMemoryGroupError(msg) from exc
    try:
        if not limit.exists():
            msg = "the control groups of this machine do not limit memory"
            raise NoMemoryGroupError(msg)
        limit.write_text(str(_LIMIT_BYTES))
        yield group
    finally:
        until(lambda: not (group / "cgroup.procs").read_text(), limit_s=10)
        group.rmdir()


def killed_in(group: Path) -> int:
    """Return how many processes the kernel has ended in that group."""
    names = ("memory.events", "memory.oom_control")
    text = next((group / name).read_text() for name in names if (group / name).exists())
    counts = dict(line.split() for line in text.splitlines())
    return int(counts["oom_kill"])
