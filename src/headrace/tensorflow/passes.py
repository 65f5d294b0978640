"""Which pass over the input a dataset is in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from headrace.errors import UsageError

__all__ = ["Passes"]

_T = TypeVar("_T")


class Passes:
    """Counts the passes of `ctx.dataset`: each iteration is one, unless one was left early.

    Args:
        epoch: The first one, from 0; later than that behind a restored checkpoint.
    """

    def __init__(self, epoch: int = 0) -> None:
        self._number = epoch
        self._is_over = False
        self._begun = 0
        self._batches = 0
        self._of_ended: int | None = None

    @property
    def number(self) -> int:
        """The present pass, from 0."""
        return self._number

    def count(self, batches: int) -> None:
        """Note batches that the iteration was given; with a negative number, withdrawn ones."""
        self._batches += batches

    def is_cut(self, *, untaken: int, at_once: int) -> bool:
        """Return whether the iteration was left as Keras' ``fit`` leaves its later epochs.

        It asks for as many executions as its first epoch took to see the end of the data, where
        that pass, or the rest of one, may have been shorter than this.

        Args:
            untaken: Batches that the iteration was given and has not taken.
            at_once: Batches of an execution.
        """
        if self._is_over or self._of_ended is None:
            return False
        return self._batches - untaken == (self._of_ended // at_once + 1) * at_once

    def goes_on(self, *, is_first: bool, epochs: int) -> bool:
        """Return whether the pass of an iteration that asks may have further rows.

        It has none once it is over, however often it is asked: Keras asks on for the rest of
        an execution of several steps, and must not get rows of the next pass.

        Args:
            is_first: Whether the iteration begins: with the next pass, or with the rest of one
                that was left.
            epochs: Passes that were planned.

        Raises:
            UsageError: All `epochs` passes are over.
        """
        if not is_first:
            return not self._is_over
        self._begun += 1
        self._batches = 0
        if not self._is_over:
            return True
        if self._number + 1 >= epochs:
            msg = (
                f"ctx.dataset was iterated {self._number + 2} times, and the job was planned "
                f"with epochs={epochs}: its rows are used up. Plan "
                f"epochs={self._number + 2}, or iterate no further."
            )
            raise UsageError(msg)
        self._number += 1
        self._is_over = False
        return True

    def none_since(self, batches: Iterator[_T]) -> Iterator[_T]:
        """Pass on `batches` of another iteration of the input, unless a dataset's begins.

        Raises:
            UsageError: It has: how many rows a batch has, and which is the next, are its now.
        """
        return self._of_begun(self._begun, batches)

    def _of_begun(self, begun: int, batches: Iterator[_T]) -> Iterator[_T]:
        while True:
            if self._begun != begun:
                msg = (
                    "An iterator of ctx.batches goes on after ctx.dataset was iterated. Call "
                    "ctx.batches again: it goes on with the next row."
                )
                raise UsageError(msg)
            try:
                yield next(batches)
            except StopIteration:
                return

    def end(self) -> None:
        """Note that the present pass is over."""
        self._is_over = True
        self._of_ended = self._batches
