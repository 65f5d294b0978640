"""What a process that scores gets, between whose batches a model may be replaced."""

from __future__ import annotations

from collections.abc import Callable

from headrace.role import PollResult, RoleContext

__all__ = ["ScoringContext"]


class ScoringContext(RoleContext):
    """A context that calls back between two batches, and while it waits for one.

    Attributes:
        between_batches: Called before each batch, and every 0.2 s while there is none, on the
            thread that asks for batches.
    """

    between_batches: Callable[[], None] | None = None

    def _wait(self, poll: Callable[[float], PollResult | None]) -> PollResult:
        between_batches = self.between_batches
        if between_batches is None:
            return super()._wait(poll)

        def look_and_poll(timeout_s: float) -> PollResult | None:
            between_batches()
            return poll(timeout_s)

        return super()._wait(look_and_poll)
