"""A planned fit, and a running one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headrace.operator.training import TrainingPlan

if TYPE_CHECKING:
    from headrace.operator.handle import JobHandle

__all__ = ["FitJob", "FitPlan"]

F = TypeVar("F")


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPlan(Generic[F]):
    """A fit that is planned as a Flink job; nothing runs yet.

    Attributes:
        training: The job, for example to add roles to its cluster.
        open_fitted: Returns the model, once the job has ended well.
    """

    training: TrainingPlan
    open_fitted: Callable[[], F]

    def submit(self, statements: Any = None) -> FitJob[F]:
        """Submit the job, with every sink of its environment.

        Args:
            statements: A `StatementSet` of the same table environment whose INSERTs join the
                job.

        Returns:
            The running fit.

        Raises:
            PlanError, Py4JJavaError, TableException: As `TrainingPlan.submit`.
        """
        return FitJob(handle=self.training.submit(statements), open_fitted=self.open_fitted)


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob(Generic[F]):
    """A fit that runs.

    Attributes:
        handle: The job, to look at, to stop or to cancel.
        open_fitted: Returns the model, once the job has ended well.
    """

    handle: JobHandle
    open_fitted: Callable[[], F]

    def wait(self, *, timeout_s: float | None = None, show_progress: bool = True) -> F:
        """Block until the job has ended; return the fitted model.

        Args:
            timeout_s: Longest wait, in seconds; the job goes on after it. None waits until the
                end.
            show_progress: Whether to show a live line (terminal) or a line each 10 s (log).

        Returns:
            The fitted model.

        Raises:
            JobFailedError: The job failed or was cancelled; the text has the cause.
            JobManagerLostError: As `JobHandle.wait`.
            WaitTimeoutError: `timeout_s` has passed.
            StopError, UsageError: As `JobHandle.wait`, where other roles were added that ask
                for a savepoint, or the job cannot be drained.
            ConfigError: What the fit has saved is not in `model_dir` here.
        """
        self.handle.wait(timeout_s=timeout_s, show_progress=show_progress)
        return self.open_fitted()
