"""Options of Flink that Headrace looks at or sets, and the older names that Flink still reads.

Source: `CheckpointingOptions` and `RestartStrategyOptions` of Flink 2.3 (deprecated keys).
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = [
    "CHECKPOINT_DIR",
    "CHECKPOINT_RETENTION",
    "CHECKPOINT_STORAGE",
    "RESTART_STRATEGY",
    "SAVEPOINT_DIR",
    "failure_defaults",
    "names_of",
]

CHECKPOINT_DIR = "execution.checkpointing.dir"
CHECKPOINT_RETENTION = "execution.checkpointing.externalized-checkpoint-retention"
CHECKPOINT_STORAGE = "execution.checkpointing.storage"
RESTART_STRATEGY = "restart-strategy.type"
SAVEPOINT_DIR = "execution.checkpointing.savepoint-dir"
_TOLERABLE = "execution.checkpointing.tolerable-failed-checkpoints"
_WITHOUT_LIMIT = 2**31 - 1  # CheckpointFailureManager.UNLIMITED_TOLERABLE_FAILURE_NUMBER
_FIXED = "restart-strategy.fixed-delay"
_EXPONENTIAL = "restart-strategy.exponential-delay"
_FIXED_NAMES = ("fixed-delay", "fixeddelay")

_OLDER = {
    CHECKPOINT_DIR: ("state.checkpoints.dir", "state.backend.fs.checkpointdir"),
    CHECKPOINT_STORAGE: ("state.checkpoint-storage",),
    RESTART_STRATEGY: ("restart-strategy",),
    SAVEPOINT_DIR: ("state.savepoints.dir", "savepoints.state.backend.fs.dir"),
}


def names_of(key: str) -> tuple[str, ...]:
    """Return the names of an option, in the order in which Flink looks for them."""
    return (key, *_OLDER.get(key, ()))


def failure_defaults(
    max_restarts: int, *, has_rows: bool, strategy: str | None = None
) -> Mapping[str, str]:
    """Return what a failure costs in a job whose user has not said it (ADR 0127).

    Args:
        max_restarts: Attempts: in all, or on rows since a quarter of an hour without a failure.
        has_rows: Whether a role has an input. Such a job may run for months; in one without,
            the master restarts the group and counts.
        strategy: The restart strategy that the user has set, if any; its limits are Flink's
            where the user has set none, but for the attempts of a fixed delay, which are 1.
    """
    fixed = {f"{_FIXED}.attempts": str(max_restarts), f"{_FIXED}.delay": "1 s"}
    tolerance = {_TOLERABLE: str(_WITHOUT_LIMIT)}
    if strategy is not None:
        return {**(fixed if strategy in _FIXED_NAMES else {}), **tolerance}
    if not has_rows:
        return {RESTART_STRATEGY: "fixed-delay", **fixed, **tolerance}
    if max_restarts == 0:  # Flink refuses an exponential delay without attempts
        return {RESTART_STRATEGY: "none", **tolerance}
    return {
        RESTART_STRATEGY: "exponential-delay",
        f"{_EXPONENTIAL}.attempts-before-reset-backoff": str(max_restarts),
        f"{_EXPONENTIAL}.reset-backoff-threshold": "15 min",
        f"{_EXPONENTIAL}.initial-backoff": "1 s",
        f"{_EXPONENTIAL}.backoff-multiplier": "3.0",
        f"{_EXPONENTIAL}.max-backoff": "30 s",
        f"{_EXPONENTIAL}.jitter-factor": "0.0",
        **tolerance,
    }
