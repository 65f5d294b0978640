"""Which pass over the input a dataset is in."""

from __future__ import annotations

from headrace.errors import UsageError

__all__ = ["Passes"]


class Passes:
    """Counts the passes of `ctx.dataset`: each iteration is one, unless one was left early."""

    def __init__(self) -> None:
        self._number = 0
        self._is_over = False

    def begin(self, *, epochs: int) -> None:
        """Note that an iteration begins: the next pass, or the rest of one that was left.

        Raises:
            UsageError: All `epochs` passes are over.
        """
        if not self._is_over:
            return
        if self._number + 1 >= epochs:
            msg = (
                f"ctx.dataset was iterated {self._number + 2} times, and the job was planned "
                f"with epochs={epochs}: its rows are used up. Plan "
                f"epochs={self._number + 2}, or iterate no further."
            )
            raise UsageError(msg)
        self._number += 1
        self._is_over = False

    def end(self) -> None:
        """Note that the present pass is over."""
        self._is_over = True
