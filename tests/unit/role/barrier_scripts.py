"""Workers on scripts: what a worker's operator sends, and what it was when it answered."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias, cast

import pyarrow as pa

from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.role import BatchReader, InputEnded, PollResult, ReadyBatch
from headrace.role.barriers import Barriers
from headrace.role.dropping import drop_rows
from tests.unit.role.trainers import Sum, Trainer

SCHEMA = pa.schema([("x", pa.int64())])
_ROWS = 4


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
