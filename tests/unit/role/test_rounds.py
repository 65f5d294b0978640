"""The common rounds without a framework: threads that add up lists of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.role.alone import Alone
from headrace.role.rounds import Reduction, Tallies
from tests.unit.role.trainers import Sum, Trainer


def _train(trainer: Trainer, batches: Sequence[Sequence[float] | None]) -> Trainer:
    """Step on each batch; for None the input is silent once."""
    left = list(batches)

    def poll(timeout_s: float) -> Sequence[float] | None:
        return left.pop(0) if left else ()

    while rows := trainer.wait(poll):
        trainer.step(rows)
    trainer.finish(lambda: None)
    return trainer


def _train_two(
    one: Sequence[Sequence[float] | None],
    two: Sequence[Sequence[float] | None],
    reduction: Reduction = "mean",
) -> tuple[Trainer, Trainer, Sum]:
    add = Sum()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(_train, Trainer(add, reduction), one)
        second = pool.submit(_train, Trainer(add, reduction), two)
        return first.result(), second.result(), add


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 2.5), ("sum", 10.0)])
def test_a_round_is_a_step_on_the_union_of_the_rows(
    reduction: Reduction, expected: float
) -> None:
    one, two, _ = _train_two([[1.0, 2.0, 3.0]], [[4.0]], reduction)
    assert (one.model, two.model) == (expected, expected)
    assert (one.steps, two.steps) == (1, 1)


def test_a_worker_whose_input_has_ended_takes_every_step_of_the_other_as_a_shadow() -> None:
    one, two, _ = _train_two([[1.0]], [[3.0], [5.0], [7.0]])
    assert (one.model, two.model) == (2.0 + 5.0 + 7.0, 14.0)
    assert (one.steps, one.shadow_steps) == (3, 2)
    assert (two.steps, two.shadow_steps) == (3, 0)


def test_an_idle_worker_does_not_hold_up_the_other() -> None:
    one, two, _ = _train_two([None, [2.0]], [[3.0], [6.0]])
    assert (one.model, two.model) == (3.0 + 4.0, 7.0)
    assert (one.shadow_steps, two.shadow_steps) == (1, 0)


def test_while_nobody_has_rows_only_tallies_travel() -> None:
    one, two, add = _train_two([], [])
    assert (one.steps, two.steps) == (0, 0)
    assert {len(each) for each in add.sums} == {len(Tallies().to_list())}


def test_whoever_is_finished_waits_for_input_without_the_others() -> None:
    one, two, add = _train_two([[1.0]], [[1.0]])
    rounds = len(add.sums)
    answers = iter([None, "rows"])
    assert one.wait(lambda _: next(answers)) == "rows"
    one.finish(lambda: None)
    two.end_pass(lambda: None)
    assert len(add.sums) == rounds


def test_tallies_survive_the_way() -> None:
    mine = Tallies(rows=64.0, active=1, explicit=1, at_barrier=1, rates=(0.25, 0.5))
    assert Tallies.from_list(mine.to_list(2)) == mine
    assert Tallies(ended=1).to_list(2) == [0, 0, 1, 0, 0, 0, 0, 0]


def test_alone_there_is_nobody_to_wait_for() -> None:
    alone = Alone()
    answers = iter([None, "rows"])
    assert alone.wait(lambda _: next(answers)) == "rows"
    alone.count(3)
    alone.finish(lambda: pytest.fail("nobody else has steps to make"))
    alone.end_pass(lambda: pytest.fail("nobody else has a pass to end"))
    assert (alone.steps, alone.pending_rows) == (0, 0)
