"""The checkpoint that outlives a job whose restarts have run out."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from headrace.operator.environment import FlinkEnvironment
from headrace.operator.flink_options import CHECKPOINT_DIR, CHECKPOINT_RETENTION

__all__ = ["RETAINED_ON_FAILURE", "RetainedCheckpoint"]

RETAINED_ON_FAILURE = "DELETE_ON_CANCELLATION"
"""Of `ExternalizedCheckpointRetention`: what is cancelled, or ends well, leaves none."""
_NEVER = "NO_EXTERNALIZED_CHECKPOINTS"
_NUMBERED = "chk-"
_OF_CLUSTER = f"<{CHECKPOINT_DIR} of the cluster>"


class RetainedCheckpoint:
    """Where Flink leaves the newest checkpoint of a job that has failed.

    Thread model: no state; any thread.

    Args:
        directory: What `execution.checkpointing.dir` says: a URI, or a path. None: what the
            cluster has set, which is not known here.
    """

    def __init__(self, directory: str | None) -> None:
        self._directory = _OF_CLUSTER if directory is None else directory.rstrip("/")

    @classmethod
    def of(cls, flink: FlinkEnvironment) -> RetainedCheckpoint | None:
        """Return that of a job with a directory for checkpoints; None where none stays."""
        is_kept = (flink.option(CHECKPOINT_RETENTION) or _NEVER).upper() != _NEVER
        return cls(flink.option(CHECKPOINT_DIR)) if is_kept else None

    def advice(self, job_id: str) -> str:
        """Return what a user can do with it, as a sentence; "" where there is none."""
        of_job = f"{self._directory}/{job_id}"
        folder = _local_path(of_job)
        newest = f"{of_job}/{_NUMBERED}<number>, if one had completed"
        if folder is not None and folder.is_dir():  # a directory of this host
            complete = [each.parent.name for each in folder.glob(f"{_NUMBERED}*/_metadata")]
            if not complete:
                return ""
            newest = f"{of_job}/{max(complete, key=_number)}"
        return (
            "Its last checkpoint stays; a job goes on from it with the option "
            f"`execution.state-recovery.path` set to {newest}."
        )


def _number(name: str) -> int:
    return int(name.removeprefix(_NUMBERED))


def _local_path(uri: str) -> Path | None:
    parts = urlsplit(uri)
    return Path(unquote(parts.path)) if parts.scheme in ("", "file") else None
