"""The directory of one algorithm process: made, filled and removed by its node."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from pathlib import Path

import msgspec

from headrace.framework.process import ProcessSpec

__all__ = ["link_entries", "make_work_dir", "remove_work_dir", "spec_path_in", "write_spec"]

_LOG = logging.getLogger(__name__)


def make_work_dir(work_dir: Path) -> None:
    """Make the directory, for the owner only. Harmless if it is there."""
    work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def spec_path_in(work_dir: Path) -> Path:
    """Return where the spec of the process is, or will be."""
    return work_dir / "process.json"


def write_spec(spec: ProcessSpec) -> Path:
    """Write the spec into the directory of the process, for the owner only."""
    path = spec_path_in(Path(spec.work_dir))
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(spec))
    return path


def link_entries(archives: Path, work_dir: Path) -> None:
    """Show each archive in the working directory, where PyFlink's own workers have it."""
    for entry in archives.iterdir():
        link = work_dir / entry.name
        if os.path.lexists(link):
            _LOG.warning("archive %s is hidden by a file of the process", entry.name)
        else:
            link.symlink_to(entry)


async def remove_work_dir(work_dir: Path) -> None:
    """Remove the directory with its content. Never raises."""
    try:
        await asyncio.to_thread(shutil.rmtree, work_dir, ignore_errors=True)
    except RuntimeError:  # the host gives no further thread: that may be what has failed
        shutil.rmtree(work_dir, ignore_errors=True)
