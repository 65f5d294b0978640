"""Notices a step on rows behind a restored checkpoint, of a model that was not restored."""

from __future__ import annotations

from collections.abc import Callable

from headrace.errors import PlanError
from headrace.role import require_not_restored

__all__ = ["LoneStep"]


class LoneStep:
    """Refuses every step of a Keras optimizer once the input is read.

    XLA's steps cannot be seen when they are made: once one was compiled, the input is not read.

    A model may be trained on other data before, and rows may be only looked at. What changes
    weights by itself (`assign`, an optimizer of `tf.compat.v1`) is not seen.

    Thread model: any thread; a step in a graph is seen on one of TensorFlow's.

    Args:
        is_reading: Returns whether the input is being read.

    Attributes:
        error: What was raised in a step, of which TensorFlow hands on the text only.
    """

    error: PlanError | None = None

    def __init__(self, is_reading: Callable[[], bool]) -> None:
        self._is_reading = is_reading
        self._close: Callable[[], object] | None = None
        self._is_compiled = False

    def open(self) -> None:
        """Begin to look at the steps of this process."""
        from headrace.tensorflow.internals import watch_optimizers

        self._close = watch_optimizers(self._on_step, self._on_compiled_step)

    def require_no_compiled_step(self) -> None:
        """Refuse to read rows once a step was compiled, in which none can be seen to be made.

        Raises:
            PlanError: XLA has compiled one.
        """
        require_not_restored(is_restored=self._close is not None and self._is_compiled)

    def close(self) -> None:
        """Look no more: the model was restored, or the process ends. Idempotent."""
        if self._close is not None:
            self._close()
            self._close = None

    def _on_step(self) -> None:
        try:
            require_not_restored(is_restored=self._close is not None and self._is_reading())
        except PlanError as error:
            self.error = error
            raise

    def _on_compiled_step(self) -> None:
        self._is_compiled = True
        self._on_step()
