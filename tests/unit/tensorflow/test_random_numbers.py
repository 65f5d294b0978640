"""Random numbers behind a restore are those of the undisturbed run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from headrace.exchange import Barrier, End
from headrace.tensorflow import TFContext

from .test_checkpointed import batches, restored_from, run

pytestmark = pytest.mark.timeout(60)

ITEMS = [*batches(0, 5), Barrier(1), *batches(5, 9), End()]
REST = [*batches(5, 9), End()]


@pytest.fixture(autouse=True)
def no_global_generator() -> Iterator[None]:
    """Make each test begin, and end, without the global generator of TensorFlow."""
    tf.random.set_global_generator(None)
    yield
    tf.random.set_global_generator(None)


def drawing(
    drawn: list[tuple[float, ...]], *, seed: int, loop: str, keep: str, makes_generator: bool
) -> Callable[[TFContext], None]:
    """Return a function that draws from each generator, once for each batch."""

    def draw(ctx: TFContext) -> None:
        keras.utils.clear_session()
        keras.utils.set_random_seed(seed)
        if makes_generator:
            tf.random.get_global_generator().reset_from_seed(seed)
        if keep == "checkpointed":
            ctx.checkpointed()
        else:
            ctx.state["seen"] = True
        rows: Any = ctx.dataset(2) if loop == "dataset" else ctx.batches(rows=2)
        drawn.extend(
            (
                random.random(),
                float(np.random.random()),
                float(tf.random.uniform(())),
                float(keras.random.uniform(())),
                float(tf.random.get_global_generator().uniform(())),
            )
            for _ in rows
        )

    return draw


@pytest.mark.parametrize("loop", ["dataset", "batches"])
@pytest.mark.parametrize("keep", ["checkpointed", "state"])
@pytest.mark.parametrize("makes_generator", [False, True])
def test_numbers_behind_a_restore_are_those_of_the_undisturbed_run(
    tmp_path: Path, loop: str, keep: str, makes_generator: bool
) -> None:
    """In the restored process TensorFlow's generator is there before, or not."""
    undisturbed: list[tuple[float, ...]] = []
    restored: list[tuple[float, ...]] = []
    how: Any = {"loop": loop, "keep": keep}
    train = drawing(undisturbed, seed=3, makes_generator=True, **how)
    feed = run(tmp_path, train, ITEMS)
    assert len(undisturbed) == 9
    tf.random.set_global_generator(None)
    train = drawing(restored, seed=99, makes_generator=makes_generator, **how)
    run(tmp_path, train, REST, **restored_from(tmp_path, feed.states[0][1]))
    assert restored == undisturbed[5:]


@pytest.mark.parametrize("keep", ["checkpointed", "state"])
def test_a_function_that_was_traced_before_draws_the_numbers_that_are_due(
    tmp_path: Path, keep: str
) -> None:
    def drawing(drawn: list[tuple[float, ...]], seed: int) -> Callable[[TFContext], None]:
        def draw(ctx: TFContext) -> None:
            keras.utils.set_random_seed(seed)
            generator = tf.random.get_global_generator()
            generator.reset_from_seed(seed)

            @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
            def numbers() -> Any:
                return keras.random.uniform(()), generator.uniform(())

            numbers()
            if keep == "checkpointed":
                ctx.checkpointed()
            else:
                ctx.state["seen"] = True
            for _ in ctx.dataset(2):
                one, other = numbers()
                drawn.append((float(one), float(other)))

        return draw

    undisturbed: list[tuple[float, ...]] = []
    restored: list[tuple[float, ...]] = []
    feed = run(tmp_path, drawing(undisturbed, 3), ITEMS)
    content = restored_from(tmp_path, feed.states[0][1])
    run(tmp_path, drawing(restored, 99), REST, **content)
    assert restored == undisturbed[5:]


def test_generators_of_ones_own_are_kept_where_they_are_named(tmp_path: Path) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(ctx: TFContext) -> None:
        one, other = tf.random.Generator.from_seed(1), keras.random.SeedGenerator(1)
        ctx.checkpointed(one=one, other=other)
        drawn.extend(
            (float(one.uniform(())), float(keras.random.uniform((), seed=other)))
            for _ in ctx.batches(rows=2)
        )

    feed = run(tmp_path, draw, ITEMS)
    run(tmp_path, draw, REST, **restored_from(tmp_path, feed.states[0][1]))
    assert len(set(drawn[:9])) == 9
    assert drawn[9:] == drawn[5:9]
