"""All gradients of a model in one vector."""

from __future__ import annotations

import numpy as np

from headrace.role.rounds import Tallies
from headrace.tensorflow.vector import StepVector

SIZES = [2, 3]


def vector() -> StepVector:
    return StepVector(SIZES, 1, np.float64)


def test_the_sum_over_the_rows_is_the_gradient_of_the_union() -> None:
    parts = [(3, [1.0, 2.0, 3.0, 4.0, 5.0], [10.0]), (1, [5.0, 6.0, 7.0, 8.0, 9.0], [2.0])]
    total = vector()
    for rows, gradients, state in parts:
        one = vector()
        one.load(
            Tallies(rows=rows, active=1, rates=(0.5,)),
            np.ones(2),
            np.array(gradients),
            np.array(state),
            weight=rows,
        )
        total.whole += one.whole
    mean, mean_state = total.take(gradients_over=4.0, state_over=4.0)
    np.testing.assert_allclose(mean, [2.0, 3.0, 4.0, 5.0, 6.0])
    np.testing.assert_allclose(mean_state, [8.0])
    assert total.tallies() == Tallies(rows=4, active=2, rates=(1.0,))
    assert total.flags() == (2, 2)


def test_a_worker_without_rows_adds_nothing_but_its_tallies() -> None:
    one = vector()
    one.whole.fill(7)
    one.clear(Tallies(ended=1, finished=1))
    assert one.tallies() == Tallies(ended=1, finished=1, rates=(0.0,))
    assert one.flags() == (0, 0)
    gradients, state = one.take(gradients_over=1.0, state_over=1.0)
    assert not gradients.any()
    assert not state.any()


def test_what_is_taken_is_not_overwritten_by_the_next_round() -> None:
    one = vector()
    one.load(Tallies(rows=1), np.ones(2), np.ones(5), np.ones(1), weight=1.0)
    gradients, _ = one.take(gradients_over=1.0, state_over=1.0)
    one.clear(Tallies())
    assert gradients.tolist() == [1.0] * 5
