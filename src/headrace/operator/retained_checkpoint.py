"""The checkpoint that outlives a job whose restarts have run out."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.flink_options import CHECKPOINT_DIR, CHECKPOINT_RETENTION

__all__ = ["RETAINED_ON_FAILURE", "RetainedCheckpoint"]

RETAINED_ON_FAILURE = "DELETE_ON_CANCELLATION"
"""Of `ExternalizedCheckpointRetention`: what is cancelled, or ends well, leaves none."""
_NEVER = "NO_EXTERNALIZED_CHECKPOINTS"
_SUBDIR = "execution.checkpointing.create-subdir"
_NUMBERED = re.compile(r"chk-(\d+)")
_OF_CLUSTER = f"<{CHECKPOINT_DIR} of the cluster>"


class RetainedCheckpoint:
    """Where Flink leaves the newest checkpoint of a job that has failed.

    Thread model: no state; any thread.

    Args:
        directory: What `execution.checkpointing.dir` says: a URI, or a path. None: what the
            cluster has set, which is not known here.
        has_subdir: Whether each job has a directory of its own in it, with its id for a name.
    """

    def __init__(self, directory: str | None, *, has_subdir: bool = True) -> None:
        self._directory = _OF_CLUSTER if directory is None else directory.rstrip("/")
        self._has_subdir = has_subdir

    @classmethod
    def of(cls, flink: FlinkEnvironment) -> RetainedCheckpoint | None:
        """Return that of a job with a directory for checkpoints; None where none stays."""
        if (flink.option(CHECKPOINT_RETENTION) or _NEVER).upper() == _NEVER:
            return None
        has_subdir = (flink.option(_SUBDIR) or "true").lower() == "true"
        return cls(flink.option(CHECKPOINT_DIR), has_subdir=has_subdir)

    def advice(self, job_id: str) -> str:
        """Return what a user can do with it, as a sentence; "" where there is none."""
        folder = f"{self._directory}/{job_id}" if self._has_subdir else self._directory
        complete = _complete_in(folder) if self._has_subdir else None
        if complete == []:
            return ""
        number = "<number>, if one had completed" if complete is None else max(complete)
        return (
            "Its last checkpoint stays; a job goes on from it with the option "
            f"`execution.state-recovery.path` set to {folder}/chk-{number}."
        )


def _complete_in(uri: str) -> list[int] | None:
    """Return the numbers of the complete checkpoints; None where they cannot be seen here."""
    parts = urlsplit(uri)
    if parts.scheme not in ("", "file"):
        return None
    try:
        return [
            int(found[1])
            for each in Path(unquote(parts.path)).iterdir()
            if (found := _NUMBERED.fullmatch(each.name)) and (each / "_metadata").exists()
        ]
    except OSError:  # of another host, or of another user
        return None
