"""Files that a process leaves for later attempts (batch mode).

What was saved is a file or a directory in the job's checkpoint directory, named
`step-<step>.attempt-<attempt>`. It appears under that name only when it is complete and on the
disk. An attempt sees what earlier attempts saved only, so all processes of a group that is
started again find the same, whatever the group itself has saved meanwhile.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace._counts import require_count
from headrace.errors import UsageError

__all__ = ["latest_saved", "new_saved"]

_NAME = re.compile(r"step-(\d+)\.attempt-(\d+)")


def latest_saved(directory: Path, attempt: int) -> Path | None:
    """Return the newest that an attempt before `attempt` saved, or None.

    Newest: of the latest attempt that saved any, the one of the highest step.
    """
    found = []
    for path in directory.glob("step-*.attempt-*"):
        match = _NAME.fullmatch(path.name)
        if match and int(match[2]) < attempt:
            found.append((int(match[2]), int(match[1]), path))
    return max(found)[2] if found else None


@contextmanager
def new_saved(directory: Path, step: int, attempt: int) -> Iterator[Path]:
    """Offer a path to write to; when the block ends well, it is what `step` saved.

    As a whole or not at all. The path does not exist yet: write a file to it, or make it a
    directory. If the block raises, what was written is removed.

    Raises:
        ConfigError: `step` is no count.
        UsageError: The block wrote nothing.
    """
    step = require_count("step", step, least=0)
    directory.mkdir(parents=True, exist_ok=True)
    final = directory / f"step-{step:012d}.attempt-{attempt}"
    draft = directory / f".{final.name}.{os.getpid()}"
    _remove(draft)
    try:
        yield draft
        if not draft.exists():
            msg = f"Nothing was written to {draft}, which ctx.checkpoint_path({step}) offered"
            raise UsageError(msg)
        _sync(draft)
        if final.is_dir():
            shutil.rmtree(final)  # the same step of the same attempt, saved again
        draft.replace(final)
        _sync_one(directory)
    finally:
        _remove(draft)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    if path.is_dir():
        for child in path.rglob("*"):
            _sync_one(child)
    _sync_one(path)


def _sync_one(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
