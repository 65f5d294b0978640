"""Workers answer a checkpoint's barrier at one common step, wherever it lies in their rows."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.role import BatchReader, InputEnded, PollResult, ReadyBatch
from headrace.role.barriers import Barriers
from headrace.role.dropping import drop_rows
from tests.unit.role.trainers import Sum, Trainer

SCHEMA = pa.schema([("x", pa.int64())])
_ROWS = 4
_ABORTED_AFTER = 40  # looks of a process that waits at a barrier, if nothing else is said


@dataclass(frozen=True)
class Rows:
    """So many rows arrive."""

    count: int


@dataclass(frozen=True)
class Silence:
    """Nothing is there when the worker asks, once."""


Script: TypeAlias = Sequence[Rows | Silence | Barrier]
"""What a worker's operator sends before the end of its input."""


class ScriptFeed(MemoryFeed):
    """Gives out a script, and aborts checkpoints that not all workers hear of.

    Attributes:
        rows_before: The rows before each barrier that was given out before the end.
    """

    def __init__(
        self, script: Script, *, later: Sequence[Barrier], aborts: dict[int, int]
    ) -> None:
        super().__init__(input_schema=SCHEMA)
        self.rows_before: dict[int, int] = {}
        self._script: list[Rows | Silence | Item] = [*script, End(), *later]
        self._aborts = dict(aborts)  # checkpoint to looks that are left
        self._number = itertools.count()
        self._rows = 0
        self._has_ended = False
        self._later: int | None = None

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:
        if not self._script or self._waits():
            return End() if self._has_ended else None
        match self._script.pop(0):
            case Silence():
                return None
            case Rows(count):
                self._rows += count
                numbers = list(itertools.islice(self._number, count))
                return Batch(pa.record_batch([numbers], schema=SCHEMA))
            case Barrier() as barrier:
                if self._has_ended:
                    self._later = barrier.checkpoint_id
                else:
                    self.rows_before[barrier.checkpoint_id] = self._rows
                return barrier
            case item:
                self._has_ended = True
                return item

    def _waits(self) -> bool:
        """Whether the operator sends no further barrier behind the end: one is not over."""
        return self._later is not None and self._later not in dict(self.acknowledged)

    def watch(self, *, timeout_s: float) -> None:
        self._look()

    def attend(self) -> None:
        """The operator, while the process only shadows the others."""
        self._look()

    def _look(self) -> None:
        for checkpoint, looks in self._aborts.items():
            if checkpoint in self.rows_before:
                self._aborts[checkpoint] = looks - 1
                if looks <= 0:
                    self.aborted_ids.add(checkpoint)


@dataclass(frozen=True)
class Answer:
    """What a worker was when it answered a barrier."""

    checkpoint: int
    steps: int
    model: float
    rows: int


@dataclass
class Worker:
    """Trains on a script, as an entry function does."""

    feed: ScriptFeed
    add: Sum
    epochs: int = 1
    leave_after: int | None = None
    looks_first: bool = False
    spool_dir: Path | None = None
    answers: list[Answer] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.trainer = Trainer(self.add)
        self.barriers = Barriers(self.feed, self._capture)
        ticks = itertools.count()
        self.reader = BatchReader(
            self.feed,
            rows=_ROWS,
            epochs=self.epochs,
            spool_dir=self.spool_dir,
            clock=lambda: float(next(ticks)),
            barriers=self.barriers,
        )
        self.rows = 0

    def __call__(self) -> Worker:
        try:
            self._run()
        except BaseException:
            self.add.give_up()
            raise
        finally:
            self.reader.close()
        return self

    def _run(self) -> None:
        first = self.reader.poll(0) if self.looks_first else None
        self.trainer.use_barriers(self.barriers)
        steps = 0
        left = False
        while True:
            event = first or cast("PollResult", self.trainer.wait(self.reader.poll))
            first = None
            if isinstance(event, InputEnded):
                break
            if isinstance(event, ReadyBatch):
                self._step(event)
                steps += 1
                left = steps == self.leave_after
                if left:
                    break
            elif event.epoch + 1 < self.epochs:
                self.trainer.end_pass(self._attend)
        self.trainer.finish(self._drop if left else self._attend)
        for _ in range(10):
            self._drop() if left else self._attend()

    def _step(self, event: ReadyBatch) -> None:
        numbers = event.columns.column(0).to_pylist()
        self.trainer.step(numbers)
        self.rows += len(numbers)

    def _attend(self) -> None:
        self.feed.attend()
        self.reader.attend()

    def _drop(self) -> None:
        self.feed.attend()
        drop_rows(self.reader)

    def _capture(self, checkpoint_id: int | None) -> None:
        if checkpoint_id is None:
            return
        trainer = self.trainer
        self.answers.append(
            Answer(
                checkpoint=checkpoint_id,
                steps=trainer.steps,
                model=trainer.model,
                rows=self.rows,
            )
        )

    @property
    def answered(self) -> list[int]:
        return [each.checkpoint for each in self.answers]


def train(
    *scripts: Script,
    later: Sequence[Barrier] = (),
    aborts: dict[int, int] | None = None,
    **options: object,
) -> list[Worker]:
    """Run a worker for each script; `options` are those of `Worker`, one for each."""
    add = Sum(len(scripts))
    workers = [
        Worker(
            ScriptFeed(script, later=later, aborts=aborts or {}),
            add,
            **{name: given[index] for name, given in options.items()},  # type: ignore[index]
        )
        for index, script in enumerate(scripts)
    ]
    with ThreadPoolExecutor(len(workers)) as pool:
        return [each.result() for each in [pool.submit(worker) for worker in workers]]


def require_common_steps(workers: Sequence[Worker]) -> None:
    """Who answers a barrier does so at the step of the others, with the model of the others."""
    for checkpoint in {each for worker in workers for each in worker.answered}:
        found = {
            (each.steps, each.model)
            for worker in workers
            for each in worker.answers
            if each.checkpoint == checkpoint
        }
        assert len(found) == 1, (checkpoint, found)
    for worker in workers:
        for each in worker.answers:
            if worker.leave_after is None and each.checkpoint in worker.feed.rows_before:
                assert each.rows == worker.feed.rows_before[each.checkpoint]


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
