"""What a process that scores gets, between whose batches a model may be replaced."""

from __future__ import annotations

from collections.abc import Callable

from headrace.inference.model_thread import ModelThread
from headrace.inference.scorer import Scorer
from headrace.role import BatchReader, InputEnded, PollResult, ReadyBatch, RoleContext

__all__ = ["ScoringContext"]


class ScoringContext(RoleContext):
    """A context that calls back between two batches, and while it waits for one.

    Attributes:
        between_batches: Called before each batch, and every 0.2 s while there is none, on the
            thread that asks for batches.
    """

    between_batches: Callable[[], None] | None = None

    def score_all(
        self, rows: int, scorer: Callable[[], Scorer], *, after_batch: Callable[[], None]
    ) -> None:
        """Emit for each batch of the input what it is scored to, in order.

        The model is called on a thread of its own. While it works on one batch, this thread
        makes the next ready and emits the last, and shares Python's lock with nobody.

        Args:
            rows: Rows in a batch, at most: what is there comes at once.
            scorer: Returns who scores the next batch.
            after_batch: Called when a batch was emitted.
        """
        reader = self.open_reader(rows=rows)
        reader.takes_what_is_there = True
        with ModelThread() as thread:
            # No other variable holds a batch: its slot is free once it is emitted.
            while (ready := self._next_batch(reader)) is not None:
                present = successor = scorer()
                thread.start(present.begin(ready.columns))
                while ready is not None:
                    following = reader.poll_ahead()
                    if following is not None:
                        if self.between_batches is not None:
                            self.between_batches()
                        successor = scorer()
                        thread.start(successor.begin(following.columns))
                    self.emit(present.end(ready.columns, thread.result()), ready.timestamps_ms)
                    reader.settle(ready.columns.num_rows)
                    after_batch()
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
