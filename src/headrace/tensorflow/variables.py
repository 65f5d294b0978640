"""Between Keras' variables and TensorFlow's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import tensorflow as tf

__all__ = ["make_counter", "own_count", "raw_variable"]


def raw_variable(variable: Any) -> Any:
    """Return TensorFlow's variable inside a Keras one; one of TensorFlow's as it is."""
    return variable.value if isinstance(variable, keras.Variable) else variable


def make_counter(shape: list[int]) -> tf.Variable:
    """Return a variable of whole numbers, all 0, that lives in this process, on the CPU.

    Whatever scopes of devices, strategies, servers or functions there are: they belong to a
    thread, and a new one has none.
    """

    def make() -> tf.Variable:
        with tf.device("CPU:0"):
            return tf.Variable(tf.zeros(shape, tf.int64), trainable=False)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(make).result()


def own_count(counter: Any) -> Any:
    """Return what counts the steps of this process, of a counter that may be common to all."""
    return getattr(raw_variable(counter), "of_this_process", counter)
