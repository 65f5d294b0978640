"""The steps of a worker on parameter servers: nobody waits for anybody, but who saves, at last.

At a checkpoint's barrier, if variables on the servers are kept in it, workers come to rest
together (`headrace.role.at_rest`); worker 0 then stays until the others' inputs have ended.

A worker says when its rows are used up: at the end of its input, or when its entry function
returns. The one that saves waits for all of them, so what it saves has been trained on every
row, but perhaps for the step that another is just making. Its wait ends with the last of the
others' inputs, or with the job.

An input has ended when that is asked for: rows that a dataset built on `ctx.dataset` keeps back
(``shuffle``, ``prefetch``) count as used up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from headrace.errors import WaitTimeoutError
from headrace.role import REPORT_EVERY_S
from headrace.role.at_rest import ATTEND_EVERY_S, AtRest
from headrace.role.barriers import Barriers
from headrace.tensorflow.alone import AloneSteps

__all__ = ["ServedSteps", "Worker"]

_LOOK_EVERY_S = 0.2
_T = TypeVar("_T")


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
        self._at_rest: AtRest | None = None
        self._barriers: Barriers | None = None

    @property
    def is_common(self) -> bool:
        """Whether barriers are answered together with other workers."""
        return self._at_rest is not None

    def rest_with(self, at_rest: AtRest, barriers: Barriers) -> None:
        """Answer barriers together with other workers from now on, before a row is read."""
        self._at_rest, self._barriers = at_rest, barriers
        barriers.begin_common(barriers.newest)

    def wait(self, poll: Callable[[float], _T | None]) -> _T:
        """Wait for own input; at a barrier, for the other workers."""
        if self._at_rest is None or self._barriers is None:
            return super().wait(poll)
        while (event := poll(0.0 if self._is_at_barrier else REPORT_EVERY_S)) is None:
            if self._is_at_barrier:
                self._at_rest.attend(self._barriers, ATTEND_EVERY_S)
        return event

    def finish(self, attend: Callable[[], object]) -> None:
        """Say that this worker's rows are used up; the keeper waits for the others' rows."""
        if self._has_said:
            return
        self._has_said = True
        self._worker.publish(self._key(self._worker.index), "yes")
        if self._at_rest is not None and self._barriers is not None:
            self._at_rest.end(self._barriers, attend)

    def settle(self, attend: Callable[[], object]) -> None:
        """Say it, and where this process saves, wait until all others have."""
        self.finish(attend)
        if self._worker.is_saver:
            for index in range(self._worker.parallelism):
                while not self._is_over(index):
                    attend()

    def close(self) -> None:
        """Leave the other workers. Idempotent."""
        if self._at_rest is not None:
            self._at_rest.close()

    @property
    def _is_at_barrier(self) -> bool:
        return self._barriers is not None and self._barriers.held is not None

    def _counter_of(self, thing: Any) -> Any:
        """Return what counts the steps of this process: the optimizer's own counts all."""
        counter = super()._counter_of(thing)
        if counter is None:
            return None
        from headrace.tensorflow.variables import own_count

        return own_count(counter)

    def _is_over(self, index: int) -> bool:
        try:
            self._worker.lookup(self._key(index), _LOOK_EVERY_S)
        except WaitTimeoutError:
            return False
        return True

    def _key(self, index: int) -> str:
        return f"headrace/trained/{self._worker.role}-{index}"
