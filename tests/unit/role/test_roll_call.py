"""The highest number of all workers, by sums that float32 can hold."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.role.roll_call import RollCall, call_roll
from tests.unit.role.trainers import Sum


def ask_all(*numbers: int | None) -> tuple[list[RollCall], Sum]:
    add = Sum(len(numbers))

    def add_narrow(values: list[float]) -> list[float]:
        total: list[float] = np.array(add(values), np.float32).tolist()
        return total

    with ThreadPoolExecutor(len(numbers)) as pool:
        calls = [pool.submit(call_roll, add_narrow, number) for number in numbers]
        return [call.result() for call in calls], add


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((5, 5, 5), RollCall(3, 5, is_unanimous=True)),
        ((5, None, 5), RollCall(2, 5, is_unanimous=True)),
        ((None, 0, None), RollCall(1, 0, is_unanimous=True)),
        ((None, None, None), RollCall(0, -1, is_unanimous=True)),
        ((0, 1, None), RollCall(2, 1, is_unanimous=False)),
        # The mean of these is the number in the middle.
        ((7, 8, 9), RollCall(3, 9, is_unanimous=False)),
        ((2**62, 2**62 + 1, 3), RollCall(3, 2**62 + 1, is_unanimous=False)),
    ],
)
def test_all_learn_the_highest_and_whether_it_is_everybodys(
    numbers: tuple[int | None, ...], expected: RollCall
) -> None:
    found, _ = ask_all(*numbers)
    assert found == [expected] * len(numbers)


def test_numbers_that_agree_cost_one_sum() -> None:
    _, add = ask_all(2**40 + 1, 2**40 + 1)
    assert len(add.sums) == 1


@given(st.lists(st.none() | st.integers(0, 2**63 - 1), min_size=1, max_size=4))
def test_the_answer_is_that_of_a_comparison(numbers: list[int | None]) -> None:
    found, add = ask_all(*numbers)
    given_numbers = [number for number in numbers if number is not None]
    expected = RollCall(
        present=len(given_numbers),
        highest=max(given_numbers, default=-1),
        is_unanimous=len(set(given_numbers)) <= 1,
    )
    assert found == [expected] * len(numbers)
    assert len(add.sums) <= max(1, len(set(given_numbers)))
