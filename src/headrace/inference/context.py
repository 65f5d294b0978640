"""What a process that scores gets, between whose batches a model may be replaced."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from headrace.framework.stopping import require_no_stop
from headrace.inference.model_thread import ModelThread
from headrace.inference.scorer import Scorer
from headrace.role import BatchReader, InputEnded, PollResult, ReadyBatch, RoleContext

__all__ = ["ScoringContext"]

_LOOK_EVERY_S = 0.1


class ScoringContext(RoleContext):
    """A context that calls back between two batches, and while it waits for one.

    Attributes:
        between_batches: Called before each batch, and every 0.2 s while there is none, on the
            thread that asks for batches.
    """

    between_batches: Callable[[], None] | None = None

    def wait_for(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait for something outside, before the rows; return whether it came in time.

        Raises:
            PeerLostError: The operator is gone.
            StopRequestedExit: The node stops this process.
        """
        assert self._feed is not None
        deadline = self._clock() + timeout_s
        while not condition():
            if self._clock() >= deadline:
                return False
            require_no_stop()
            self._feed.watch(timeout_s=_LOOK_EVERY_S)
        return True

    def score_all(self, rows: int, scorer: Callable[[], Scorer]) -> None:
        """Emit for each batch of the input what it is scored to, in order.

        The model is called on a thread of its own. While it works on one batch, this thread
        makes the next ready and emits the last. What fails for a batch is raised when those
        before it were emitted.

        Args:
            rows: Rows in a batch, at most: what is there comes at once.
            scorer: Returns who scores the next batch.
        """
        reader = self.open_reader(rows=rows)
        reader.takes_what_is_there = True
        with ModelThread() as thread:
            # No other variable holds a batch: its slot is free once it is emitted.
            while (ready := self._next_batch(reader)) is not None:
                present = successor = scorer()
                thread.start(_begun(present, ready))
                while ready is not None:
                    following = reader.poll_ahead()
                    if following is not None:
                        if self.between_batches is not None:
                            self.between_batches()
                        successor = scorer()
                        thread.start(_begun(successor, following))
                    self.emit(present.end(ready.columns, thread.result()), ready.timestamps_ms)
                    reader.settle(ready.columns.num_rows)
                    ready, present = following, successor

    def _next_batch(self, reader: BatchReader) -> ReadyBatch | None:
        """Wait for a batch; return None at the end of the input."""
        while not isinstance(found := self._wait(reader.poll), InputEnded):
            if isinstance(found, ReadyBatch):
                return found
        return None

    def _wait(self, poll: Callable[[float], PollResult | None]) -> PollResult:
        between_batches = self.between_batches
        if between_batches is None:
            return super()._wait(poll)

        def look_and_poll(timeout_s: float) -> PollResult | None:
            between_batches()
            return poll(timeout_s)

        return super()._wait(look_and_poll)


def _begun(scorer: Scorer, batch: ReadyBatch) -> Callable[[], Any]:
    """Return the call that scores a batch; if there is none, one that raises why."""
    try:
        return scorer.begin(batch.columns)
    except Exception as exc:  # noqa: BLE001 - `inputs` may raise anything; raised in its turn
        return partial(_raise, exc)


def _raise(exc: Exception) -> None:
    raise exc
