"""Several batches at once on their way from the reader into tf.data.

A call from tf.data into Python takes longer than reading a few hundred rows. So one call brings
all batches that lie ready, up to some thousand rows, as one *portion*, and tf.data cuts it. A
variable counts how many of them were taken; when a loop was left, the others go back to the
reader (docs/adr/0099).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from headrace.tensorflow.variables import make_counter

__all__ = ["Portions", "batches_at_once"]

_PORTION_ROWS = 4096


def batches_at_once(rows: int) -> int:
    """Return how many batches of `rows` rows a portion has at most."""
    return max(1, _PORTION_ROWS // rows)


class Portions:
    """Knows the latest portion that tf.data has got.

    Thread model: one thread at a time asks; tf.data's threads count what is taken.
    """

    def __init__(self) -> None:
        self._number = 0
        self._rows: list[int] = []
        self._counts = make_counter([2])  # batches taken of the latest portion, and its number

    def give(self, rows: Sequence[int]) -> int:
        """Note a new portion; return its number, from 1.

        Args:
            rows: Rows of each of its batches.
        """
        self._number += 1
        self._rows = list(rows)
        self._counts.assign([0, self._number])
        return self._number

    def withdraw(self) -> list[int]:
        """Return the rows of each batch of the latest portion that nobody took, once.

        They cannot be taken any more.
        """
        rest = self.rest
        if rest:
            self.give([])
        self._rows = []
        return rest

    @property
    def rest(self) -> list[int]:
        """Rows of each batch of the latest portion that nobody has taken yet."""
        return self._rows[self._taken() :] if self._rows else []

    def place(self) -> tuple[int, int] | None:
        """Return where in the portion the batch taken last lies: its first row, its rows."""
        taken = self._taken() if self._rows else 0
        return (sum(self._rows[: taken - 1]), self._rows[taken - 1]) if taken else None

    def take(self, number: tf.Tensor, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Count that a batch of portion `number` is taken, in the graph of a dataset.

        The graph fails where a later portion has been given, as to another iteration.
        """
        is_latest = tf.debugging.assert_equal(
            self._counts.read_value()[1],
            number,
            "ctx.dataset is iterated anew, and an earlier iteration goes on: its rows came "
            "again in the new one. Finish or leave one before the next begins.",
        )
        with tf.control_dependencies([is_latest]):
            counted = self._counts.assign_add([1, 0], read_value=False)
        with tf.control_dependencies([counted]):
            return [tf.identity(each) for each in tensors]

    def _taken(self) -> int:
        taken: Any = self._counts.numpy()[0]
        return int(taken)
