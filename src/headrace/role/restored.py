"""Training does not go on behind a Flink checkpoint without the model of that place."""

from __future__ import annotations

from headrace.errors import PlanError

__all__ = ["require_not_restored"]

_RESTORED = (
    "This job was restored from a Flink checkpoint or savepoint. Its sources go on behind rows "
    "that the model has not seen: it would be trained on a part of the rows only. Keep the "
    "model in the checkpoints, by ctx.checkpointed(model=model, optimizer=optimizer) before "
    "the loop; or start the job without restoring it, and without a restart strategy "
    "(restart-strategy.type: none) while checkpointing is on. "
    "Where Flink has restarted the job, what failed before is in its exception history and log."
)


def require_not_restored(*, is_restored: bool) -> None:
    """Refuse to train in a job that begins behind a Flink checkpoint.

    Call it where a model is about to be trained on rows from Flink, not earlier: a function
    that trains nothing may be restored.

    Args:
        is_restored: `RoleContext.is_restored`, and the model was not restored with it.

    Raises:
        PlanError: `is_restored`.
    """
    if is_restored:
        raise PlanError(_RESTORED)
