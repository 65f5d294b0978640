"""The random number generators that TensorFlow and Keras have without being asked for one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from headrace.role.generators import Generators

if TYPE_CHECKING:  # a context may be made before TensorFlow is imported
    from headrace.tensorflow.internals import KerasSeeds

__all__ = ["TFGenerators"]


class TFGenerators(Generators):
    """Those of every process, and three of TensorFlow's and Keras'.

    - `tf.random.get_global_generator()`, if it was made, and is in this process.
    - What `tf.random.set_seed` gives to operations that are called outside of functions.
    - The global seed of `keras.random`, that of the thread which calls `note_thread`.

    Not what is inside TensorFlow's kernels: an operation of `tf.random` in a `tf.function`, or
    with a ``seed`` of its own, begins anew in a new process.
    """

    def __init__(self) -> None:
        self._keras: KerasSeeds | None = None

    def note_thread(self) -> None:
        """Say that this is the thread on which the program draws numbers; repeat it freely."""
        if "keras" in sys.modules:
            from headrace.tensorflow.internals import KerasSeeds

            self._keras = KerasSeeds()

    def states(self) -> dict[str, Any]:
        """Return their states."""
        from headrace.tensorflow.internals import operation_seeds

        states: dict[str, Any] = {
            "generator": _global_generator_state(),
            "operations": operation_seeds(),
            "keras": None if self._keras is None else self._keras.state(),
        }
        kept = {name: state for name, state in states.items() if state is not None}
        return {**super().states(), "tensorflow": kept}

    def restore(self, states: dict[str, Any]) -> None:
        """Set them to what `states` returned, perhaps in another process."""
        from headrace.tensorflow.internals import set_operation_seeds

        kept = states.get("tensorflow", {})
        if "generator" in kept:
            _set_global_generator(*kept["generator"])
        if "operations" in kept:
            set_operation_seeds(*kept["operations"])
        if "keras" in kept and self._keras is not None:
            self._keras.set_state(kept["keras"])
        super().restore(states)  # at last: making a seed draws one of Python's numbers


def _global_generator_state() -> tuple[int, np.ndarray[Any, Any]] | None:
    """Return algorithm and state of TensorFlow's global generator."""
    from headrace.tensorflow.internals import BaseResourceVariable, global_generator
    from headrace.tensorflow.ps_scope import is_on_server

    generator = global_generator()
    if generator is None or not isinstance(generator.state, BaseResourceVariable):
        return None  # the copies of a strategy have a state each
    if is_on_server(generator.state):  # all workers share it
        return None
    return int(generator.algorithm), np.array(generator.state.numpy())


def _set_global_generator(algorithm: int, state: np.ndarray[Any, Any]) -> None:
    """Set it in place where it is: functions that were traced refer to it."""
    import tensorflow as tf

    from headrace.tensorflow.internals import global_generator

    generator = global_generator()
    if generator is not None and int(generator.algorithm) == algorithm:
        generator.state.assign(np.array(state))
        return
    with tf.init_scope():
        made = tf.random.Generator.from_state(np.array(state), algorithm)
    tf.random.set_global_generator(made)
