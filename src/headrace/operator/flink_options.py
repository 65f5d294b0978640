"""Options of Flink that Headrace looks at or sets, and the older names that Flink still reads.

Source: `CheckpointingOptions` and `RestartStrategyOptions` of Flink 2.3 (deprecated keys).
"""

from __future__ import annotations

__all__ = [
    "CHECKPOINT_DIR",
    "CHECKPOINT_RETENTION",
    "CHECKPOINT_STORAGE",
    "RESTART_STRATEGY",
    "SAVEPOINT_DIR",
    "TOLERABLE_FAILED_CHECKPOINTS",
    "names_of",
]

CHECKPOINT_DIR = "execution.checkpointing.dir"
CHECKPOINT_RETENTION = "execution.checkpointing.externalized-checkpoint-retention"
CHECKPOINT_STORAGE = "execution.checkpointing.storage"
RESTART_STRATEGY = "restart-strategy.type"
SAVEPOINT_DIR = "execution.checkpointing.savepoint-dir"
TOLERABLE_FAILED_CHECKPOINTS = "execution.checkpointing.tolerable-failed-checkpoints"

_OLDER = {
    CHECKPOINT_DIR: ("state.checkpoints.dir", "state.backend.fs.checkpointdir"),
    CHECKPOINT_STORAGE: ("state.checkpoint-storage",),
    RESTART_STRATEGY: ("restart-strategy",),
    SAVEPOINT_DIR: ("state.savepoints.dir", "savepoints.state.backend.fs.dir"),
}


def names_of(key: str) -> tuple[str, ...]:
    """Return the names of an option, in the order in which Flink looks for them."""
    return (key, *_OLDER.get(key, ()))
