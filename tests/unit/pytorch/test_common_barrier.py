"""What PyTorch workers hold when they answer a barrier; another group can go on with it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pyarrow as pa
import pytest
import torch
from torch import nn

from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.pytorch.alone import AloneSteps
from headrace.pytorch.flat import FlatGradients
from headrace.pytorch.lockstep import Lockstep
from headrace.role import BatchReader, EpochEnded, InputEnded, PollResult
from headrace.role.barriers import Barriers
from headrace.role.dropping import drop_rows
from tests.unit.pytorch.workers import SharedSum, run_workers

SCHEMA = pa.schema([("x", pa.float32())])
ROWS = 2

torch.set_num_threads(1)


def rows(*numbers: float) -> Batch:
    return Batch(pa.record_batch([pa.array(numbers, pa.float32())], schema=SCHEMA))


def build_model() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(1, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Linear(3, 1))


_START = build_model()


@dataclass
class Captured:
    """All that one worker was at a barrier."""

    model: dict[str, Any]
    optimizer: dict[str, Any]
    scheduler: dict[str, Any]
    common: dict[str, Any]
    own: dict[str, Any]
    batches: int


@dataclass
class Worker:
    """Trains with Adam and a schedule on what its feed gives."""

    items: Sequence[Item]
    adder: SharedSum
    accumulate: int = 1
    begins_with: Captured | None = None
    ends_in_last_step: bool = False
    leaves_after: int | None = None
    skips: int | None = None
    captured: dict[int | None, Captured] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.model = copy.deepcopy(_START)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.05)
        self.scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 2, gamma=0.5)
        self.batches = 0

    def __call__(self) -> Worker:
        before = self.begins_with
        if before is not None:
            self.model.load_state_dict(before.model)
            self.optimizer.load_state_dict(before.optimizer)
            self.scheduler.load_state_dict(before.scheduler)
            self.batches = before.batches
        self.lockstep = Lockstep(
            FlatGradients(list(self.model.parameters()), self.model.buffers()),
            self.optimizer,
            self.scheduler,
            self.adder,
            idle_after_s=0.0,
        )
        if before is not None:
            self.lockstep.restore(before.common, before.own)
        feed = MemoryFeed(self.items, input_schema=SCHEMA)
        barriers = Barriers(feed, self._capture)
        ticks = itertools.count()
        reader = BatchReader(
            feed, rows=ROWS, clock=lambda: float(next(ticks)), barriers=barriers
        )
        self.lockstep.use_barriers(barriers)
        while True:
            event = cast("PollResult", self.lockstep.wait(reader.poll))
            if isinstance(event, InputEnded):
                break
            if isinstance(event, EpochEnded):
                continue
            self.lockstep.count(event.columns.num_rows)
            self._train(torch.tensor(event.columns["x"].to_numpy()).reshape(-1, 1))
            if self.ends_in_last_step and self.batches == 1:
                break
            if self.batches == self.leaves_after:
                break
        if self.ends_in_last_step:
            self.lockstep.count(ROWS)
            self.lockstep.finish_after_step(lambda: drop_rows(reader))
            self._train(torch.ones(ROWS, 1))
        self.lockstep.finish(
            reader.attend if self.leaves_after is None else lambda: drop_rows(reader)
        )
        self._capture(None)  # as at the end of the process
        reader.close()
        return self

    def _train(self, x: torch.Tensor) -> None:
        self.batches += 1
        if self.batches == self.skips:
            return
        if (self.batches - 1) % self.accumulate == 0:
            self.optimizer.zero_grad()  # until then the gradients of the last step are there
        loss: Any = ((self.model(x) - 2 * x) ** 2).mean() / self.accumulate
        loss.backward()
        if self.batches % self.accumulate == 0:
            self.optimizer.step()
            self.scheduler.step()

    def _capture(self, checkpoint_id: int | None) -> None:
        self.captured[checkpoint_id] = Captured(
            model=copy.deepcopy(self.model.state_dict()),
            optimizer=copy.deepcopy(self.optimizer.state_dict()),
            scheduler=copy.deepcopy(self.scheduler.state_dict()),
            common=copy.deepcopy(self.lockstep.common_part()),
            own=copy.deepcopy(self.lockstep.own_part()),
            batches=self.batches,
        )


def require_same(one: Any, other: Any) -> None:
    """Compare bit for bit."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            require_same(value, other[key])
    elif isinstance(one, list | tuple):
        for mine, its in zip(one, other, strict=True):
            require_same(mine, its)
    else:
        assert one == other


LONG = [rows(1, 2), rows(3, 4), rows(5, 6), rows(7, 8)]


def test_at_a_barrier_all_workers_hold_the_same_bits() -> None:
    adder = SharedSum(2)
    one, two = run_workers(
        [
            Worker([rows(1, 2), Barrier(5), rows(3, 4), End()], adder),
            Worker([*LONG[:3], Barrier(5), *LONG, End()], adder),
        ]
    )
    assert (list(one.captured), list(two.captured)) == ([5, None], [5, None])
    mine, others = one.captured[5], two.captured[5]
    for part in ("model", "optimizer", "scheduler", "common"):
        require_same(getattr(mine, part), getattr(others, part))
    assert mine.common["steps"] == 3
    assert mine.scheduler["last_epoch"] == 3
    assert (mine.batches, others.batches) == (1, 3)


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        pytest.param([Barrier(5)], [], id="a-barrier-before-the-loop-goes-on"),
        pytest.param([Barrier(5)], [rows(5, 6)], id="a-barrier-and-a-step"),
        pytest.param([], [rows(5, 6), rows(7, 8)], id="steps"),
        pytest.param([], [], id="nothing"),
    ],
)
def test_the_schedule_is_that_of_the_others_in_a_worker_that_ends_in_its_last_step(
    before: list[Item], behind: list[Item]
) -> None:
    adder = SharedSum(2)
    mine: list[Item] = [rows(1, 2), rows(9, 9), *before, End()]
    one, two = run_workers(
        [
            Worker(mine, adder, ends_in_last_step=True),
            Worker([*LONG[:2], *before, *behind, End()], adder),
        ]
    )
    steps: dict[int | None, int] = {None: 2 + len(behind)}
    if before:
        steps[5] = 2
    assert one.captured.keys() == two.captured.keys() == steps.keys()
    for checkpoint_id, made in steps.items():
        ours, others = (each.captured[checkpoint_id] for each in (one, two))
        assert ours.scheduler["last_epoch"] == ours.common["steps"] == made
        require_same(ours.scheduler, others.scheduler)
        require_same(ours.optimizer, others.optimizer)
    assert type(one.scheduler) is type(two.scheduler)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_group_goes_on_where_another_was_at_the_barrier(accumulate: int) -> None:
    def run(*scripts: Sequence[Item], **begins: Any) -> list[Worker]:
        adder = SharedSum(len(scripts))
        return run_workers(
            [
                Worker(script, adder, accumulate=accumulate, begins_with=begins.get(f"w{rank}"))
                for rank, script in enumerate(scripts)
            ]
        )

    # With two batches a step, the first worker is in the middle of one at the barrier.
    one: list[Item] = [rows(5, 6), rows(9, 1), rows(2, 2), End()]
    two: list[Item] = [*LONG, End()]
    whole = run([rows(1, 2), Barrier(5), *one], [*LONG[:2], Barrier(5), *two])
    at_barrier = [worker.captured[5] for worker in whole]
    assert ("gradients" in at_barrier[0].own) == (accumulate == 2)
    rest = run(one, two, w0=at_barrier[0], w1=at_barrier[1])
    for before, after in zip(whole, rest, strict=True):
        require_same(before.model.state_dict(), after.model.state_dict())
        require_same(before.optimizer.state_dict(), after.optimizer.state_dict())
        assert before.lockstep.steps == after.lockstep.steps


@pytest.mark.parametrize("leaves_after", [None, 1])
def test_rows_that_were_never_stepped_on_are_no_part_of_the_last_state(
    leaves_after: int | None,
) -> None:
    """Neither what an accumulation leaves at the end, nor what a loop that is left does."""
    adder = SharedSum(2)
    script: list[Item] = [*LONG[:3], End()]
    whole = run_workers(
        [
            Worker(script, adder, accumulate=2, leaves_after=leaves_after),
            Worker([*LONG, End()], adder, accumulate=2),
        ]
    )
    last = [worker.captured[None] for worker in whole]
    assert [each.own["pending_rows"] for each in last] == [0, 0]
    assert ["gradients" in each.own for each in last] == [False, False]
    adder = SharedSum(2)
    rest = run_workers(
        [Worker([End()], adder, accumulate=2, begins_with=each) for each in last]
    )
    for before, after in zip(whole, rest, strict=True):
        require_same(before.model.state_dict(), after.model.state_dict())
        assert before.lockstep.steps == after.lockstep.steps == 2


def test_one_worker_alone_goes_on_with_the_gradients_of_a_worker_of_a_group() -> None:
    adder = SharedSum(2)
    group = run_workers(
        [
            Worker([*LONG[:2], Barrier(5), End()], adder, accumulate=2),
            Worker([*LONG[:3], Barrier(5), End()], adder, accumulate=2),
        ]
    )
    first, second = (worker.captured[5] for worker in group)
    assert (first.own["pending_rows"], second.own["pending_rows"]) == (0, ROWS)
    alone = Worker([], adder, accumulate=2)
    alone.model.load_state_dict(first.model)
    steps = AloneSteps(alone.optimizer)
    steps.restore(first.common, second.own)
    assert (steps.steps, steps.pending_rows) == (1, ROWS)
    require_same([p.grad for p in alone.model.parameters()], second.own["gradients"])
    require_same(steps.own_part()["gradients"], second.own["gradients"])
    alone.optimizer.step()
    assert (steps.steps, steps.pending_rows, steps.own_part()) == (2, 0, {})
    steps.close()


def test_gradients_that_were_used_are_not_those_of_a_batch_that_was_skipped() -> None:
    """A loop that skips a batch has called backward for nothing since its last step."""
    adder = SharedSum(2)
    script: list[Item] = [*LONG[:2], Barrier(5), *LONG[2:], End()]
    whole = run_workers([Worker(script, adder, skips=2) for _ in range(2)])
    at_barrier = [worker.captured[5] for worker in whole]
    assert [each.own["pending_rows"] for each in at_barrier] == [ROWS, ROWS]
    assert ["gradients" in each.own for each in at_barrier] == [False, False]
    adder = SharedSum(2)
    rest = run_workers(
        [Worker([*LONG[2:], End()], adder, begins_with=each) for each in at_barrier]
    )
    for before, after in zip(whole, rest, strict=True):
        require_same(before.model.state_dict(), after.model.state_dict())


def test_one_worker_alone_keeps_no_gradients_of_a_batch_that_was_skipped() -> None:
    model = copy.deepcopy(_START)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    steps = AloneSteps(optimizer)
    x = torch.ones(ROWS, 1)
    model(x).sum().backward()
    optimizer.step()
    steps.count(ROWS)
    assert steps.own_part() == {}
    model(x).sum().backward()  # added to what is there
    assert steps.own_part()["pending_rows"] == ROWS
    optimizer.step()
    optimizer.zero_grad()
    steps.count(ROWS)
    model(x).sum().backward()
    assert len(steps.own_part()["gradients"]) == len(list(model.parameters()))
    steps.close()
