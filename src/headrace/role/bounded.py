"""A wait for input that has a limit of its own."""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import WaitTimeoutError
from headrace.role.polled import PollResult
from headrace.role.reader import BatchReader

__all__ = ["bounded_poll"]


def bounded_poll(
    reader: BatchReader, timeout_s: float, clock: Callable[[], float]
) -> Callable[[float], PollResult | None]:
    """Return `reader.poll`, which raises if nothing comes for `timeout_s` seconds.

    The time counts from the first call after a result, so time between two batches does not;
    nor does time at a barrier, where rows may be there that must wait.
    """
    asked_since: float | None = None

    def poll(wait_s: float) -> PollResult | None:
        nonlocal asked_since
        begin = clock()
        asked_since = begin if asked_since is None else asked_since
        result = reader.poll(min(wait_s, max(0.0, asked_since + timeout_s - begin)))
        waited_s = clock() - asked_since
        if result is not None or reader.is_at_barrier:
            asked_since = None
        elif waited_s >= timeout_s:
            raise WaitTimeoutError(
                waited_for=f"{reader.rows} rows of input",
                waited_s=waited_s,
                setting="timeout_s of ctx.batches",
            )
        return result

    return poll
