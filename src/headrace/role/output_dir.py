"""Where models go: files that a reader sees as a whole or not at all."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from headrace.errors import ConfigError

__all__ = ["path_below", "put_in_place", "replacing", "require_writable"]


def require_writable(directory: Path, *, setting: str = "output_dir") -> None:
    """Make the directory and try to write to it, before anything is trained for it.

    Args:
        directory: Which.
        setting: Who has given it, for the error.

    Raises:
        ConfigError: It cannot be made or written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(b"headrace")
    except OSError as exc:
        msg = (
            f"{setting}={str(directory)!r}: the process that saves, on host "
            f"{socket.gethostname()}, cannot write there: {exc}. Nothing was trained. Give a "
            "directory that this host can write to"
        )
        raise ConfigError(msg) from exc


def path_below(directory: Path, name: str) -> Path:
    """Return the path of `name` in `directory`.

    Raises:
        ConfigError: It would lead out of it.
    """
    path = directory / name
    if ".." in Path(name).parts or Path(name).is_absolute() or path == directory:
        msg = f"ctx.save(name={name!r}) must be a path below the output directory"
        raise ConfigError(msg)
    return path


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write to; when the block ends well, it is on the disk and replaces `path`.

    In one step; if the block raises, nothing has changed. Missing directories are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.chmod(0o644)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def put_in_place(draft: Path, path: Path, *, aside: Path) -> None:
    """Move a file or directory to `path`, and a directory that is there out of the way.

    One directory cannot replace another in one step. If something comes between the two, such
    as a stop, the former one is put back; nothing does that for a process that is killed.

    Args:
        draft: What is moved.
        path: Where to.
        aside: Where a former directory goes, on the same file system.
    """
    try:
        if path.is_dir():
            path.replace(aside)
        draft.replace(path)
    except BaseException:
        with suppress(OSError):  # what came is the cause
            if not path.exists():
                aside.replace(path)
        raise
