"""Files that a process leaves for later attempts, and for who follows them.

What was saved is a file or a directory in the job's checkpoint directory, named
`step-<step>.attempt-<attempt>`. It appears under that name only when it is complete and on the
disk, and leaves that name before anything of it is removed. So whatever has such a name is
whole. What replaces a directory, which no file system does in one go everywhere, stands beside
it as `step-<step>.attempt-<attempt>.save-2` before the former goes: at no moment there is none.
Everything unfinished has a hidden name, which says of which attempt, node and process it is;
what a process that was killed has left is removed by the next one that saves.

An attempt that asks for the latest sees what earlier attempts saved only, so all processes of
a group that is started again find the same, whatever the group itself has saved meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from headrace._counts import require_count
from headrace.errors import UsageError

__all__ = ["Saved", "latest_saved", "list_saved", "new_saved", "require_directory"]

_LOG = logging.getLogger(__name__)
_RIVALS = 100
_IS_TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.EISDIR, errno.ENOTDIR)
_NAME = re.compile(r"step-(\d+)\.attempt-(\d+)(?:\.save-(\d+))?")
_HIDDEN = re.compile(r"\.step-\d+\.attempt-(\d+)(?:\.save-\d+)?\.(.+)\.(\d+)\.(?:new|old)")


class Saved(NamedTuple):
    """One checkpoint; the order is that of age, oldest first.

    Attributes:
        attempt: Who saved it.
        step: What it was saved as.
        save: Which time, from 1, where a directory was replaced.
        path: The file or directory.
    """

    attempt: int
    step: int
    save: int
    path: Path


def require_directory(directory: Path | None) -> Path:
    """Return the job's checkpoint directory.

    Raises:
        UsageError: It has none.
    """
    if directory is None:
        msg = (
            "This job has no checkpoint directory. Give `checkpoint_dir=` to `Cluster` or "
            "`train`: a directory that every host reaches by the same path"
        )
        raise UsageError(msg)
    return directory


def list_saved(directory: Path) -> list[Saved]:
    """Return everything that was saved, oldest first: by attempt, and by step in an attempt.

    Any of it may be gone when the caller looks at it. Empty if there is no such directory.
    """
    try:
        names = os.listdir(directory)  # noqa: PTH208 - followed ones are listed often
    except FileNotFoundError:
        return []
    found = ((_NAME.fullmatch(name), name) for name in names)
    return sorted(
        Saved(int(match[2]), int(match[1]), int(match[3] or 1), directory / name)
        for match, name in found
        if match
    )


def latest_saved(directory: Path, attempt: int) -> Path | None:
    """Return the newest that an attempt before `attempt` saved, or None.

    Newest: of the latest attempt that saved any, the one of the highest step.
    """
    earlier = [each for each in list_saved(directory) if each.attempt < attempt]
    return earlier[-1].path if earlier else None


@contextmanager
def new_saved(
    directory: Path, step: int, attempt: int, *, node: str, keep: int | None = None
) -> Iterator[Path]:
    """Offer a path to write to; when the block ends well, it is what `step` saved.

    As a whole or not at all. The path does not exist yet: write a file to it, or make it a
    directory. If the block raises, what was written is removed.

    Args:
        directory: The job's checkpoint directory; made if it is missing.
        step: Saved before in the same attempt: replaced.
        attempt: The present attempt.
        node: Name of the node whose process saves; no two have one at the same time.
        keep: How many to keep of all that the job has saved; older ones are removed, but not
            this one, nor what `latest_saved` says to this attempt. None keeps all.

    Raises:
        ConfigError: `step` or `keep` is no count.
        UsageError: The block wrote nothing.
    """
    step = require_count("step", step, least=0)
    if keep is not None:
        keep = require_count("keep", keep)
    directory.mkdir(parents=True, exist_ok=True)
    _remove_unfinished(directory, attempt, node)
    first = directory / f"step-{step:012d}.attempt-{attempt}"
    draft = _hidden(first, node, "new")
    _remove(draft)
    try:
        yield draft
        if not draft.exists():
            msg = f"Nothing was written to {draft}, which ctx.checkpoint_path({step}) offered"
            raise UsageError(msg)
        _sync(draft)
        final, former = _put_in_place(draft, first, attempt, step)
        _sync_one(directory)
        _remove_saved((each.path for each in former if each.path != final), node)
    finally:
        _remove(draft)
    if keep is not None:
        _remove_old(directory, {final, latest_saved(directory, attempt)}, keep, node)


def _put_in_place(
    draft: Path, first: Path, attempt: int, step: int
) -> tuple[Path, list[Saved]]:
    """Give `draft` its name; return it, and what was saved as this step before.

    Raises:
        OSError: It cannot be renamed, also after others have taken `_RIVALS` names before it.
    """
    for left in reversed(range(_RIVALS)):
        former = [each for each in list_saved(first.parent) if each[:2] == (attempt, step)]
        final = _place_for(draft, first, former)
        try:
            draft.replace(final)
        except OSError as exc:
            if exc.errno not in _IS_TAKEN or not left:
                raise  # else another node has saved the same step since: the next name
        else:
            return final, former
    raise AssertionError  # the last turn raises or returns


def _place_for(draft: Path, first: Path, former: list[Saved]) -> Path:
    """Return where `draft` goes: to the latest of the `former` if that is a file as well."""
    if not former:
        return first
    latest = former[-1]
    if draft.is_dir() or latest.path.is_dir():
        return first.with_name(f"{first.name}.save-{latest.save + 1}")
    return latest.path


def _remove_old(directory: Path, spared: set[Path | None], keep: int, node: str) -> None:
    """Remove all but the newest `keep`; what was saved twice counts once."""
    saved = list_saved(directory)
    kept = sorted({each[:2] for each in saved})[-keep:]
    old = (each.path for each in saved if each[:2] not in kept and each.path not in spared)
    _remove_saved(old, node)


def _remove_saved(paths: Iterable[Path], node: str) -> None:
    for path in paths:
        hidden = _hidden(path, node, "old")
        try:
            _remove(hidden)
            path.rename(hidden)
            _remove(hidden)
        except FileNotFoundError:
            pass  # somebody else was faster
        except OSError as exc:
            _LOG.warning("%s is old and could not be removed: %s", path, exc)


def _remove_unfinished(directory: Path, attempt: int, node: str) -> None:
    """Remove what processes that have ended have left: of earlier attempts, or of this node."""
    for name in os.listdir(directory):  # noqa: PTH208 - only the names are wanted
        match = _HIDDEN.fullmatch(name)
        if match is None:
            continue
        is_of_former = match[2] == node and int(match[3]) != os.getpid()
        if int(match[1]) < attempt or is_of_former:
            with suppress(OSError):
                _remove(directory / name)


def _hidden(final: Path, node: str, kind: str) -> Path:
    return final.with_name(f".{final.name}.{node}.{os.getpid()}.{kind}")


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
