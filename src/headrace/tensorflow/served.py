"""The steps of a worker on parameter servers: nobody waits for anybody, but who saves, at last.

A worker says when its rows are used up: at the end of its input, or when its entry function
returns. The one that saves waits for all of them, so what it saves has been trained on every
row, but perhaps for the step that another is just making. Its wait ends with the last of the
others' inputs, or with the job.

An input has ended when that is asked for: rows that a dataset built on `ctx.dataset` keeps back
(``shuffle``, ``prefetch``) count as used up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from headrace.errors import WaitTimeoutError
from headrace.tensorflow.alone import AloneSteps

__all__ = ["ServedSteps", "Worker"]

_LOOK_EVERY_S = 0.2


class Worker(Protocol):
    """What is asked of a context."""

    role: str
    index: int
    parallelism: int

    @property
    def is_saver(self) -> bool:
        """Whether this process saves."""

    def publish(self, key: str, value: str) -> None:
        """Make a value known to the job."""

    def lookup(self, key: str, timeout_s: float) -> str:
        """Wait for such a value."""


class ServedSteps(AloneSteps):
    """One worker's part. Thread model as `Lockstep`.

    Args:
        worker: The context of this process.
    """

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker
        self._has_said = False

    def finish(self, attend: Callable[[], object]) -> None:  # noqa: ARG002 - nothing to wait for
        """Say that this worker's rows are used up."""
        if not self._has_said:
            self._has_said = True
            self._worker.publish(self._key(self._worker.index), "yes")

    def settle(self, attend: Callable[[], object]) -> None:
        """Say it, and where this process saves, wait until all others have."""
        self.finish(attend)
        if self._worker.is_saver:
            for index in range(self._worker.parallelism):
                while not self._is_over(index):
                    attend()

    def _is_over(self, index: int) -> bool:
        try:
            self._worker.lookup(self._key(index), _LOOK_EVERY_S)
        except WaitTimeoutError:
            return False
        return True

    def _key(self, index: int) -> str:
        return f"headrace/trained/{self._worker.role}-{index}"
