"""A capture of TensorFlow's variables copies each once, and leaves them where they are."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from headrace.exchange import Barrier, End
from headrace.role.state_format import decode_state, encode_state
from headrace.tensorflow import TFContext
from headrace.tensorflow.stateful import as_stateful

from .test_checkpointed import batches, restored_from, run

pytestmark = pytest.mark.timeout(60)

NUMBERS = [
    tf.float16,
    tf.bfloat16,
    tf.float32,
    tf.float64,
    tf.complex64,
    tf.int8,
    tf.int32,
    tf.int64,
    tf.uint8,
    tf.uint16,
    tf.bool,
]


def captured(variable: Any) -> Any:
    (state,) = as_stateful({"variable": variable}, Path())["variable"].state_dict().values()
    return state


def address(variable: Any) -> int:
    return int(captured(variable).__array_interface__["data"][0])


def through_a_file(value: Any) -> Any:
    encoded = encode_state(value)
    memory = memoryview(bytearray(encoded.size_bytes))
    encoded.write_to(memory)
    return decode_state(memory)


def numbers(dtype: tf.DType, shape: tuple[int, ...]) -> tf.Tensor:
    return tf.cast(tf.reshape(tf.range(np.prod(shape, dtype=int)) % 2 + 1, shape), dtype)


@pytest.mark.parametrize("shape", [(), (300, 2), (0, 2)])
@pytest.mark.parametrize("dtype", NUMBERS)
def test_a_variable_of_numbers_comes_back_bit_for_bit_and_is_not_copied(
    dtype: tf.DType, shape: tuple[int, ...]
) -> None:
    variable = tf.Variable(numbers(dtype, shape))
    state = captured(variable)
    assert state.dtype == dtype.as_numpy_dtype
    assert state.tobytes() == variable.numpy().tobytes()
    if shape and state.size:
        assert address(variable) == state.__array_interface__["data"][0]
    other = tf.Variable(tf.zeros(shape, dtype))
    stateful = as_stateful({"variable": other}, Path())["variable"]
    stateful.load_state_dict({"0 Variable": through_a_file(state)})
    assert other.numpy().tobytes() == variable.numpy().tobytes()


@pytest.mark.parametrize("value", ["ab\0c", ["", "ü", "abc"], [["a"], ["b"]]])
def test_a_variable_of_strings_comes_back(value: Any) -> None:
    variable, other = tf.Variable(value), tf.Variable(tf.fill(np.shape(value), "x"))
    stateful = as_stateful({"variable": other}, Path())["variable"]
    stateful.load_state_dict({"0 Variable": through_a_file(captured(variable))})
    assert other.dtype == tf.string
    assert tf.reduce_all(other == variable)


def steps() -> dict[str, Callable[[tf.Variable], Any]]:
    def by_optimizer(variable: tf.Variable) -> None:
        optimizer = keras.optimizers.Adam(0.1)
        optimizer.apply([tf.ones(variable.shape)], [variable])

    def by_rows_of_an_optimizer(variable: tf.Variable) -> None:
        rows = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([0]), variable.shape)
        keras.optimizers.SGD(0.1).apply([rows], [variable])

    return {
        "assign": lambda variable: variable.assign(variable + 1.0),
        "assign_add": lambda variable: variable.assign_add(tf.ones(variable.shape)),
        "in a function": lambda variable: tf.function(
            lambda: variable.assign_add(tf.ones(variable.shape))
        )(),
        "in XLA": lambda variable: tf.function(
            lambda: variable.assign_add(tf.ones(variable.shape)), jit_compile=True
        )(),
        "rows": lambda variable: variable.scatter_nd_add([[0]], [[1.0, 1.0]]),
        "an optimizer": by_optimizer,
        "rows of an optimizer": by_rows_of_an_optimizer,
    }


@pytest.mark.parametrize("step", steps())
def test_a_step_behind_a_capture_does_not_change_it(step: str) -> None:
    variable = tf.Variable(np.full((100, 2), 5.0, np.float32))
    for _ in range(2):  # behind the first step on rows TensorFlow reads in another way
        state = captured(variable)
        before = state.copy()
        steps()[step](variable)
        np.testing.assert_array_equal(state, before)
        assert not np.array_equal(variable.numpy(), before)
        del state
        assert address(variable) == address(variable)


@pytest.mark.parametrize("updates", ["all", "rows"])
def test_a_training_goes_on_in_the_memory_that_it_had_before_a_checkpoint(
    tmp_path: Path, updates: str
) -> None:
    """Something that referred to it, until the collector comes, would cost a further copy."""
    seen: list[tuple[int, float]] = []

    def train(ctx: TFContext) -> None:
        variable = tf.Variable(np.zeros(1_000, np.float32))
        gc.disable()
        try:
            ctx.checkpointed(variable=variable)
            for _ in ctx.batches(rows=2):
                if updates == "all":
                    variable.assign_add(tf.ones(1_000))
                else:
                    variable.scatter_nd_add([[0]], [1.0])
                seen.append((address(variable), float(variable[0])))
        finally:
            gc.enable()

    items = [*batches(0, 2), Barrier(1), *batches(2, 3), Barrier(2), *batches(3, 5), End()]
    feed = run(tmp_path, train, items)
    places, values = zip(*seen, strict=True)
    assert len(set(places)) == 1
    assert values == (1, 2, 3, 4, 5)
    assert [number for number, _ in feed.states] == [1, 2, None, None]
    run(tmp_path, train, [*batches(2, 3), End()], **restored_from(tmp_path, feed.states[0][1]))
    assert seen[-1][1] == 3
