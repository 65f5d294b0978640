"""The barriers of Flink's checkpoints that have reached a process, and when they are answered.

A process that trains by itself answers a barrier when the rows before it were handled. Workers
that train in common answer it together: who has reached it *holds* it, touches no row behind it
and takes part in the others' steps as a shadow, until all are there (`headrace.role.rounds`).
Workers that train by themselves on common variables hold it until these have been captured
(`headrace.role.at_rest`).

====================================  ==========================================================
a held barrier is                     when
====================================  ==========================================================
answered                              all workers hold this one; or the common training is over
declined                              another worker has answered it before the common training
dropped                               another worker holds a later one; or the operator has said
                                      that it was aborted, or has sent a later one
====================================  ==========================================================
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from headrace.exchange import Feed, StateFile

__all__ = ["Barriers"]

_LOG = logging.getLogger(__name__)
_NONE = -1


class Barriers:
    """What becomes of a process' barriers. Negative ids are markers, answered at once.

    Thread model: one thread at a time, as the feed; where several take turns at the feed, they
    do so with `turn`. `held` may be read on any thread.

    Args:
        feed: Where barriers come from.
        capture: Called with the id once everything before the barrier was handled, by all
            workers that train in common, and with None when no row will come any more; returns
            what goes into the checkpoint, or into every later one. None: nothing does.

    Attributes:
        held: Id of the barrier that waits for the other workers, or None.
        newest: Id of the latest barrier that was answered; -1 for none.
        turn: Held while the feed is used by `answer_held` and `end_common`, which the others'
            rounds call.
    """

    def __init__(
        self, feed: Feed, capture: Callable[[int | None], StateFile | None] = lambda _: None
    ) -> None:
        self.held: int | None = None
        self.newest = _NONE
        self.turn = threading.RLock()
        self._feed = feed
        self._capture = capture
        self._is_common = False
        self._passed = _NONE
        self._lost = _NONE
        self._is_input_over = False

    @property
    def passed(self) -> int:
        """Id of the latest barrier that is over, however it was; -1 for none."""
        return self._passed

    def reach(self, checkpoint_id: int) -> bool:
        """Note that all rows before a barrier were handled; return whether it is over.

        While it is held, calling again asks whether it still is.
        """
        if checkpoint_id < 0:
            self._feed.acknowledge(checkpoint_id)
            return True
        if checkpoint_id <= self._passed:
            return True
        if not self._is_common:
            self._pass(checkpoint_id)
            return True
        if checkpoint_id <= self._lost:
            _LOG.warning(_DECLINED, checkpoint_id)
            self._passed = checkpoint_id
            self._feed.decline(checkpoint_id)
            return True
        if self._feed.is_aborted(checkpoint_id):
            self._passed, self.held = checkpoint_id, None
            return True
        self.held = checkpoint_id
        return False

    def watch(self, timeout_s: float) -> None:
        """Wait `timeout_s` at most for the held barrier to be aborted; takes no item."""
        self._feed.watch(timeout_s=timeout_s)
        self.look()

    def look(self) -> None:
        """Drop the held barrier if the operator has said that it was aborted."""
        if self.held is not None and self._feed.is_aborted(self.held):
            self.drop_held()

    def answer_held(self) -> None:
        """All workers are at the held barrier: answer it."""
        assert self.held is not None
        checkpoint_id, self.held = self.held, None
        with self.turn:
            self._pass(checkpoint_id)

    def drop_held(self) -> None:
        """The held barrier's checkpoint is over elsewhere: go on without an answer."""
        assert self.held is not None
        _LOG.info("Checkpoint %d was given up: the rows behind its barrier are due", self.held)
        self._passed, self.held = self.held, None

    def begin_common(self, newest: int) -> None:
        """Hold barriers from now on.

        Args:
            newest: The latest that any worker has answered by itself; an earlier one cannot be
                answered by all in common any more.
        """
        self._is_common = True
        self._lost = newest

    def end_common(self) -> None:
        """Answer what is held, and everything later at once. Idempotent."""
        if not self._is_common:
            return
        self._is_common = False
        if self.held is not None:
            self.answer_held()
        if self._is_input_over:
            with self.turn:
                self._feed.acknowledge_every(self._capture(None))

    def on_input_over(self) -> None:
        """All rows were handled and none will be emitted: no later barrier must wait."""
        self._is_input_over = True
        if not self._is_common:
            self._feed.acknowledge_every(self._capture(None))

    def _pass(self, checkpoint_id: int) -> None:
        self._passed = self.newest = checkpoint_id
        self._feed.acknowledge(checkpoint_id, self._capture(checkpoint_id))


_DECLINED = (
    "Checkpoint %d is declined: another worker had passed its barrier before "
    "ctx.data_parallel, so there is no common step for it. Call ctx.data_parallel before the "
    "first row is read."
)
