"""Workers answer a checkpoint's barrier at one common step, wherever it lies in their rows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.exchange import Barrier
from tests.unit.role.barrier_scripts import (
    Rows,
    Script,
    ScriptFeed,
    Silence,
    Worker,
    require_common_steps,
    train,
)
from tests.unit.role.trainers import Sum, Trainer

_ABORTED_AFTER = 40  # looks of a process that waits at a barrier, if nothing else is said


def test_barriers_at_different_batches_are_answered_at_one_step() -> None:
    one, two = train([Rows(4), Barrier(1), Rows(8)], [*[Rows(4)] * 5, Barrier(1), Rows(4)])
    assert (one.answered, two.answered) == ([1], [1])
    assert (one.answers[0].steps, one.answers[0].rows) == (5, 4)
    assert (two.answers[0].steps, two.answers[0].rows) == (5, 20)
    assert one.answers[0].model == two.answers[0].model
    assert (one.trainer.steps, two.trainer.steps) == (7, 7)
    assert one.trainer.model == two.trainer.model


def test_the_rows_of_a_worker_train_the_same_steps_with_a_barrier_as_without() -> None:
    one, two = train([Rows(4), Barrier(1), Rows(8)], [Rows(4), Barrier(1), Rows(8)])
    plain, _ = train([Rows(4), Rows(8)], [Rows(4), Rows(8)])
    assert (one.trainer.steps, two.trainer.steps) == (3, 3)
    assert one.trainer.model == plain.trainer.model


def test_an_idle_worker_answers_with_the_others() -> None:
    silent: Script = [*[Silence()] * 6, Barrier(1), *[Silence()] * 3, Rows(4)]
    one, two = train(silent, [Rows(4), Rows(4), Barrier(1), Rows(4)])
    assert (one.answers[0].steps, one.answers[0].rows) == (2, 0)
    assert (two.answers[0].steps, two.answers[0].rows) == (2, 8)


def test_a_worker_whose_input_has_ended_answers_with_the_others() -> None:
    one, two = train([Rows(4)], [*[Rows(4)] * 3], later=[Barrier(1), Barrier(2)])
    require_common_steps([one, two])
    assert (one.answered, two.answered) == ([1, 2], [1, 2])


def test_a_worker_that_left_its_loop_drops_rows_up_to_the_barrier_and_answers_it() -> None:
    script: Script = [*[Rows(4)] * 6, Barrier(1), *[Rows(4)] * 6]
    one, two = train(script, script, leave_after=(2, None))
    assert (one.answers[0].steps, one.answers[0].rows) == (6, 8)
    assert (two.answers[0].steps, two.answers[0].rows) == (6, 24)
    assert two.trainer.steps == 12


def test_a_barrier_that_only_one_worker_has_seen_is_given_up_for_a_later_one() -> None:
    one, two = train([Barrier(1), Rows(4), Barrier(2)], [Rows(4), Rows(4), Barrier(2)])
    require_common_steps([one, two])
    assert (one.answered, two.answered) == ([2], [2])
    assert one.answers[0].steps == 3


def test_three_different_barriers_are_answered_by_nobody() -> None:
    # The mean of 1, 2 and 3 is an id that one of them has.
    scripts: list[Script] = [[Barrier(number), Rows(4), Barrier(9)] for number in (1, 2, 3)]
    workers = train(*scripts)
    assert [worker.answered for worker in workers] == [[9]] * 3
    require_common_steps(workers)


def test_an_aborted_barrier_frees_the_worker_that_waits_at_it() -> None:
    one, two = train(
        [Rows(4), Barrier(1), Rows(4)], [Rows(4), Silence(), Rows(4), Rows(4)], aborts={1: 3}
    )
    assert (one.answered, two.answered) == ([], [])
    assert one.trainer.model == two.trainer.model
    assert one.rows == 8


def test_a_worker_takes_the_barrier_that_it_holds_into_the_next_pass(tmp_path: Path) -> None:
    places = [tmp_path / str(rank) for rank in range(2)]
    for place in places:
        place.mkdir()
    one, two = train(
        [Rows(4)], [Rows(4)] * 3, later=[Barrier(1)], epochs=(2, 2), spool_dir=places
    )
    require_common_steps([one, two])
    assert (one.answered, two.answered) == ([1], [1])


def test_what_was_answered_alone_before_is_not_answered_in_common_by_another() -> None:
    one, two = train(
        [Barrier(1), Rows(4), Barrier(2)],
        [Rows(4), Barrier(1), Rows(4), Barrier(2)],
        looks_first=(True, True),
    )
    assert (one.answered, two.answered) == ([1, 2], [2])
    assert (one.feed.declined, two.feed.declined) == ([], [1])
    assert one.answers[1].steps == two.answers[0].steps


def test_a_worker_that_gets_no_barriers_is_not_waited_for() -> None:
    add = Sum(2)
    worker = Worker(ScriptFeed([Rows(4), Barrier(1), Rows(4)], later=(), aborts={}), add)

    def chief() -> Trainer:
        trainer = Trainer(add)
        trainer.use_barriers(None)
        for number in range(5):
            trainer.step([number])
        trainer.finish(lambda: None)
        return trainer

    with ThreadPoolExecutor(2) as pool:
        of_chief = pool.submit(chief)
        pool.submit(worker).result()
        assert of_chief.result().model == worker.trainer.model
    assert worker.answered == [1]
    assert worker.answers[0].rows == 4


def test_the_numbers_of_the_rounds_are_taken_up_by_another_worker() -> None:
    add = Sum(2)

    def one() -> Trainer:
        trainer = Trainer(add)
        trainer.step([1.0, 2.0, 3.0])
        trainer.end_pass(lambda: None)
        trainer.count(2)
        return trainer

    with ThreadPoolExecutor(2) as pool:
        first, second = (each.result() for each in [pool.submit(one) for _ in range(2)])
    assert first.common_part() == second.common_part()
    again = Trainer(add)
    again.restore(first.common_part(), first.own_part())
    assert again.steps == 1
    assert again.pending_rows == 2
    assert again.common_part() == first.common_part()
    assert again.own_part() == first.own_part()


# --- any schedule --------------------------------------------------------------------------


@dataclass(frozen=True)
class Schedule:
    """Scripts of all workers; checkpoints that some never hear of are aborted at last."""

    scripts: tuple[tuple[Rows | Silence | Barrier, ...], ...]
    later: int
    epochs: int
    leave_after: tuple[int | None, ...]
    abort_after: int

    @property
    def incomplete(self) -> dict[int, int]:
        seen = [{i.checkpoint_id for i in s if isinstance(i, Barrier)} for s in self.scripts]
        some, every = set.union(*seen), set.intersection(*seen)
        return dict.fromkeys(some - every, self.abort_after)

    @property
    def complete(self) -> set[int]:
        seen = [{i.checkpoint_id for i in s if isinstance(i, Barrier)} for s in self.scripts]
        return set.intersection(*seen)


@st.composite
def schedules(draw: Callable[..., object]) -> Schedule:
    world_size = draw(st.integers(2, 3))
    assert isinstance(world_size, int)
    arrivals = st.lists(st.builds(Rows, st.integers(1, 9)) | st.just(Silence()), max_size=4)
    checkpoints = [3, 4, 5]
    scripts = []
    for _ in range(world_size):
        script: list[Rows | Silence | Barrier] = []
        for checkpoint in checkpoints:
            script += draw(arrivals)  # type: ignore[arg-type]
            if draw(st.integers(0, 4)):
                script.append(Barrier(checkpoint))
        script += draw(arrivals)  # type: ignore[arg-type]
        scripts.append(tuple(script))
    leaves = st.none() | st.none() | st.integers(1, 4)
    return Schedule(
        scripts=tuple(scripts),
        later=draw(st.integers(0, 2)),  # type: ignore[arg-type]
        epochs=draw(st.integers(1, 2)),  # type: ignore[arg-type]
        leave_after=tuple(draw(leaves) for _ in scripts),  # type: ignore[misc]
        abort_after=draw(st.sampled_from([0, 2, _ABORTED_AFTER])),  # type: ignore[arg-type]
    )


@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=None)
@given(schedules())
def test_any_schedule_ends_and_answers_each_barrier_at_one_step(schedule: Schedule) -> None:
    with tempfile.TemporaryDirectory() as directory:
        places = [Path(directory) / str(number) for number in range(len(schedule.scripts))]
        for place in places:
            place.mkdir()
        workers = train(
            *schedule.scripts,
            later=[Barrier(10 + number) for number in range(schedule.later)],
            aborts=schedule.incomplete,
            epochs=[schedule.epochs] * len(places),
            spool_dir=places,
            leave_after=schedule.leave_after,
        )
    assert len({(worker.trainer.steps, worker.trainer.model) for worker in workers}) == 1
    require_common_steps(workers)
    for worker in workers:
        for each in worker.answers:  # at the common end each answers what it holds
            at_the_end = each.steps == worker.trainer.steps
            assert at_the_end or each.checkpoint not in schedule.incomplete
        assert worker.barriers.held is None
        assert worker.answered == sorted(set(worker.answered))
    if all(leave is None for leave in schedule.leave_after):
        for worker in workers:
            assert schedule.complete <= set(worker.answered)
