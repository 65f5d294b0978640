"""A program that is not the one that wrote the checkpoint: what it may change, is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from headrace.errors import PlanError
from headrace.exchange import Barrier, End
from headrace.tensorflow import TFContext

from .test_checkpointed import batches, restored_from, run

pytestmark = pytest.mark.timeout(60)


def keeping(model: keras.Model) -> Callable[[TFContext], None]:
    def entry(ctx: TFContext) -> None:
        ctx.checkpointed(model=model)
        for _ in ctx.batches():
            pass

    return entry


def dense(*units: int) -> keras.Model:
    return keras.Sequential([keras.Input((1,)), *map(keras.layers.Dense, units)])


def test_a_program_with_other_layers_is_told_every_entry_that_differs(tmp_path: Path) -> None:
    feed = run(tmp_path, keeping(dense(2, 1)), [*batches(0, 1), Barrier(1), End()])
    restored = restored_from(tmp_path, feed.states[0][1])
    with pytest.raises(PlanError) as caught:
        run(tmp_path, keeping(dense(2, 3, 1)), [End()], **restored)
    assert str(caught.value).splitlines()[1:] == [
        "  missing in the checkpoint: 4 kernel, shape (3, 1)",
        "  missing in the checkpoint: 5 bias, shape (1,)",
        "  2 kernel: shape (2, 1) in the checkpoint, (2, 3) here",
        "  3 bias: shape (1,) in the checkpoint, (3,) here",
    ]
    with pytest.raises(
        PlanError, match=r"unexpected in the checkpoint: 2 kernel, shape \(2, 1"
    ):
        run(tmp_path, keeping(dense(2)), [End()], **restored)


def test_a_program_of_other_code_goes_on_where_the_entries_are_the_same(tmp_path: Path) -> None:
    before = dense(2, 1)
    feed = run(tmp_path, keeping(before), [*batches(0, 1), Barrier(1), End()])
    inputs = keras.Input((1,))
    hidden = keras.layers.Dense(2, name="renamed")(inputs)
    after = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    run(tmp_path, keeping(after), [End()], **restored_from(tmp_path, feed.states[0][1]))
    for one, other in zip(after.get_weights(), before.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
