"""Says what to do where a job cannot be restored from what Flink's options name."""

from __future__ import annotations

from headrace.errors import PlanError
from headrace.operator.environment import FlinkEnvironment
from headrace.operator.failure import cause_text

__all__ = ["recovery_error"]

_PATHS = ("execution.state-recovery.path", "execution.savepoint.path")  # the older name
_NOT_FOUND = ("_metadata", "file system implementation", "FileNotFound")
_SIGN = "savepoint"
_UNMAPPED = "Cannot map checkpoint/savepoint state"
_PLAN_AGAIN = (
    "State is found again by the name of the cluster ({name!r}), the names of its roles and "
    "the query around it: plan the job as the one that the state is of, or set "
    "`execution.state-recovery.ignore-unclaimed-state` to true, and what nothing takes is left "
    "out"
)
_NAME_ANOTHER = (
    "Name the directory of a savepoint, or of a checkpoint that was retained (chk-N), by a URI "
    "that the JobManager can read; without the option the job starts without a state"
)


def recovery_error(
    flink: FlinkEnvironment, job_name: str, error: BaseException
) -> PlanError | None:
    """Return the error for a job that Flink cannot restore; None if that is not the trouble.

    Args:
        flink: Where the job is planned.
        job_name: Name of the cluster.
        error: What submitting it raised.
    """
    key = next((each for each in _PATHS if flink.option(each) is not None), None)
    if key is None or not isinstance(error, Exception):
        return None
    cause, path = cause_text(error), str(flink.option(key))
    if _SIGN not in cause and not _is_of(path, cause):
        return None
    hint = ""
    if _UNMAPPED in cause:
        hint = f"{_PLAN_AGAIN.format(name=job_name)}. "
    elif any(sign in cause for sign in _NOT_FOUND):
        hint = f"{_NAME_ANOTHER}. "
    return PlanError(
        f"The job cannot be restored from {key}={path!r}. {hint}Flink says: {cause}"
    )


def _is_of(path: str, cause: str) -> bool:
    """Whether the text is about what the option names, and no other file."""
    scheme, _, rest = path.rpartition(":")
    return rest in cause or (bool(scheme) and f"scheme '{scheme}'" in cause)
