"""A directory for the checkpoints of a job on the embedded cluster, if it has none."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.flink_options import (
    CHECKPOINT_DIR,
    CHECKPOINT_RETENTION,
    CHECKPOINT_STORAGE,
)

__all__ = ["LocalCheckpoints"]

_PLACES = (CHECKPOINT_DIR, CHECKPOINT_STORAGE, CHECKPOINT_RETENTION)


class LocalCheckpoints:
    """Flink's own default is the heap of the JobManager, which refuses states above 5 MB.

    The job's handle owns the directory: it ends when `JobHandle.wait` has seen the job's end,
    and otherwise with the program, as the embedded cluster does.

    Thread model: one thread.

    Args:
        flink: Where the job is planned.
        is_drained: Whether the job may be drained, which takes a savepoint: that is kept where
            checkpoints are before it is written, also where none are made.
    """

    def __init__(self, flink: FlinkEnvironment, *, is_drained: bool = False) -> None:
        """Make the directory and name it to Flink, if checkpoints have no other place."""
        self._flink = flink
        self._path: Path | None = None
        self._is_named = False
        is_given = any(flink.option(key) is not None for key in _PLACES)
        is_needed = is_drained or flink.has_checkpoints
        if flink.is_embedded and is_needed and not is_given:
            self._path = Path(tempfile.mkdtemp(prefix="headrace-checkpoints-"))
            atexit.register(self.close)
            flink.set_default(CHECKPOINT_DIR, self._path.as_uri())
            self._is_named = True

    def forget(self) -> None:
        """Take the name back from Flink, where the next job is planned."""
        if self._is_named:
            self._flink.remove_option(CHECKPOINT_DIR)
            self._is_named = False

    def close(self) -> None:
        """Remove the directory. Idempotent."""
        if self._path is not None:
            atexit.unregister(self.close)
            shutil.rmtree(self._path, ignore_errors=True)
            self._path = None
