"""All gradients of a model in one NumPy vector, so that one all-reduce carries a step.

Layout: ``[tallies | has-gradient flags | gradients | floating-point state]``. Each worker puts
in what it has, weighted by its rows; the sum, divided by the sum of the rows, is what one
process would have computed on the union of the rows. State is what a model changes while it
trains without being trained, such as the running means of batch normalization.

Nothing here communicates, and nothing here knows TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.role.rounds import Tallies

__all__ = ["StepVector"]

Array = npt.NDArray[Any]
_TALLIES = len(Tallies().to_list())


class StepVector:
    """The vector and its parts.

    Args:
        sizes: Elements of each trainable variable, in the same order on every worker.
        state_elements: Elements of the state.
        dtype: float32, or float64 if the model has such variables.
    """

    def __init__(self, sizes: Sequence[int], state_elements: int, dtype: Any) -> None:
        self.variables = len(sizes)
        gradients = sum(sizes)
        begin = _TALLIES + self.variables
        self.whole: Array = np.zeros(begin + gradients + state_elements, dtype)
        self._head = self.whole[:begin]
        self._gradients = self.whole[begin : begin + gradients]
        self._state = self.whole[begin + gradients :]

    def load(
        self, tallies: Tallies, flags: Array, gradients: Array, state: Array, *, weight: float
    ) -> None:
        """Put in this worker's part.

        Args:
            tallies: About this worker.
            flags: 1 for each variable that has a gradient, else 0.
            gradients: Of all variables, one after the other; shape (elements,).
            state: Shape (state_elements,); weighted by `tallies.rows`.
            weight: What the gradients are multiplied by.
        """
        self._head[:_TALLIES] = tallies.to_list()
        self._head[_TALLIES:] = flags
        np.multiply(gradients, weight, out=self._gradients)
        np.multiply(state, tallies.rows, out=self._state)

    def clear(self, tallies: Tallies) -> None:
        """Fill the vector for a worker that has nothing to add to this round."""
        self.whole.fill(0)
        self._head[:_TALLIES] = tallies.to_list()

    def tallies(self) -> Tallies:
        """Return the tallies in the vector."""
        return Tallies.from_list(self._head[:_TALLIES].tolist())

    def flags(self) -> tuple[int, ...]:
        """Return how many workers had a gradient for each variable."""
        return tuple(round(flag) for flag in self._head[_TALLIES:].tolist())

    def take(self, *, gradients_over: float, state_over: float) -> tuple[Array, Array]:
        """Return the summed gradients and state, divided; fresh arrays."""
        return self._gradients / self.whole.dtype.type(gradients_over), (
            self._state / self.whole.dtype.type(state_over)
        )
