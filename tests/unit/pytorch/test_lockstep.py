"""The protocol on threads; with processes and gloo: test_data_parallel.py."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from headrace.errors import UsageError
from headrace.pytorch.flat import FlatGradients
from headrace.pytorch.lockstep import Lockstep
from headrace.role import REPORT_EVERY_S
from headrace.role.rounds import Reduction
from tests.unit.pytorch.workers import SharedSum, run_workers

NOTHING = "nothing comes in time"
END_OF_PASS = "the pass ends"
Script = Sequence[torch.Tensor | str]

torch.set_num_threads(1)


def rows(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float32).reshape(-1, 1)


def _seeded() -> nn.Sequential:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(1, 3), nn.Tanh(), nn.Linear(3, 1))


_START = _seeded()


def build_model() -> nn.Sequential:
    return copy.deepcopy(_START)


@dataclass
class Worker:
    """Trains on a script: batches, and polls that bring nothing."""

    script: Script
    adder: SharedSum
    reduction: Reduction = "mean"
    idle_after_s: float = 0.0
    build_optimizer: Callable[[nn.Module], torch.optim.Optimizer] = lambda model: (
        torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    )
    build_scheduler: Callable[..., torch.optim.lr_scheduler.LRScheduler] | None = None
    accumulate: int = 1
    explicit_clip: float | None = None
    before_step_clip: float | None = None
    leave_after: int | None = None
    set_rate: Callable[[torch.optim.Optimizer, int], None] | None = None
    trace: list[tuple[int, list[float]]] = field(default_factory=list)

    def __call__(self) -> dict[str, torch.Tensor]:
        model = build_model()
        optimizer = self.build_optimizer(model)
        scheduler = self.build_scheduler(optimizer) if self.build_scheduler else None
        parameters = list(model.parameters())
        before_step = None
        if self.before_step_clip is not None:
            limit = self.before_step_clip
            before_step = lambda: nn.utils.clip_grad_norm_(parameters, limit)  # noqa: E731
        lockstep = Lockstep(
            FlatGradients(parameters, model.buffers()),
            optimizer,
            scheduler,
            self.adder,
            reduction=self.reduction,
            before_step=before_step,
            idle_after_s=self.idle_after_s,
        )
        for number, batch in enumerate(self._batches(lockstep), 1):
            if self.set_rate is not None:
                self.set_rate(optimizer, lockstep.steps)
            loss = ((model(batch) - 2 * batch) ** 2).mean()
            (loss / self.accumulate).backward()
            if number % self.accumulate:
                continue
            if self.explicit_clip is not None:
                lockstep.reduce_now()
                nn.utils.clip_grad_norm_(parameters, self.explicit_clip)
            optimizer.step()
            optimizer.zero_grad()
            self.trace.append((lockstep.steps, batch.flatten().tolist()))
            if scheduler is not None:
                scheduler.step()
            if number == self.leave_after:
                break
        lockstep.finish(lambda: None)
        return {**model.state_dict(), "steps": torch.tensor(lockstep.steps)}

    def _batches(self, lockstep: Lockstep) -> Iterator[torch.Tensor]:
        left = list(self.script)

        def poll(timeout_s: float) -> torch.Tensor | str | None:
            item = left.pop(0) if left else "end"
            return None if isinstance(item, str) and item == NOTHING else item

        while True:
            item = lockstep.wait(poll)
            if isinstance(item, torch.Tensor):
                lockstep.count(len(item))
                yield item
            elif item == END_OF_PASS:
                lockstep.end_pass(lambda: None)
            else:
                return


def train_alone(steps: Sequence[torch.Tensor], *, clip: float | None = None) -> nn.Module:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for batch in steps:
        optimizer.zero_grad()
        ((model(batch) - 2 * batch) ** 2).mean().backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return model


def require_equal(result: dict[str, torch.Tensor], model: nn.Module) -> None:
    for name, value in model.state_dict().items():
        torch.testing.assert_close(result[name], value, rtol=1e-5, atol=1e-6)


def train_together(
    *scripts: Script, **options: object
) -> tuple[list[dict[str, torch.Tensor]], SharedSum]:
    adder = SharedSum(len(scripts))
    workers = [Worker(script, adder, **options) for script in scripts]  # type: ignore[arg-type]
    return run_workers(workers), adder


def test_even_rows_equal_one_process_on_the_union() -> None:
    results, _ = train_together([rows(1, 2), rows(3, 4)], [rows(5, 6), rows(7, 8)])
    alone = train_alone([rows(1, 2, 5, 6), rows(3, 4, 7, 8)])
    for result in results:
        require_equal(result, alone)


def test_uneven_batches_are_weighted_by_their_rows() -> None:
    results, _ = train_together([rows(1), rows(3, 4, 9)], [rows(5, 6, 2, 2), rows(7)])
    alone = train_alone([rows(1, 5, 6, 2, 2), rows(3, 4, 9, 7)])
    for result in results:
        require_equal(result, alone)


def test_a_worker_without_any_row_ends_with_the_same_model() -> None:
    results, _ = train_together([rows(1, 2), rows(3)], [])
    for result in results:
        require_equal(result, train_alone([rows(1, 2), rows(3)]))
        assert result["steps"] == 2


def test_a_worker_that_ends_first_shadows_the_rest() -> None:
    results, _ = train_together([rows(1)], [rows(2), rows(3), rows(4)], [rows(5), rows(6)])
    alone = train_alone([rows(1, 2, 5), rows(3, 6), rows(4)])
    for result in results:
        require_equal(result, alone)


def test_a_worker_that_idles_lets_the_others_go_on() -> None:
    results, _ = train_together(
        [rows(1), NOTHING, NOTHING, rows(2)], [rows(3), rows(4), rows(5), rows(6)]
    )
    alone = train_alone([rows(1, 3), rows(4), rows(5), rows(2, 6)])
    for result in results:
        require_equal(result, alone)


def test_rounds_without_rows_step_nobody() -> None:
    results, _ = train_together([*[NOTHING] * 4, rows(1)], [*[NOTHING] * 4, rows(2)])
    for result in results:
        require_equal(result, train_alone([rows(1, 2)]))
        assert result["steps"] == 1


def test_while_all_are_idle_only_tallies_travel() -> None:
    script: Script = [rows(1), *[NOTHING] * 5, rows(2)]
    _, adder = train_together(script, script)
    vector = max(adder.lengths)
    # First step, the round that finds all idle, second step, the round that finds all ended.
    assert adder.lengths.count(vector) == 4
    assert set(adder.lengths) == {7, vector}


def test_all_workers_cross_the_end_of_a_pass_together() -> None:
    results, _ = train_together(
        [rows(1), rows(2), END_OF_PASS, rows(1), rows(2)], [rows(3), END_OF_PASS, rows(3)]
    )
    alone = train_alone([rows(1, 3), rows(2), rows(1, 3), rows(2)])
    for result in results:
        require_equal(result, alone)


def test_a_worker_that_leaves_its_loop_shadows_across_passes() -> None:
    adder = SharedSum(2)
    script: Script = [rows(1), rows(2), END_OF_PASS, rows(1), rows(2)]
    results = run_workers([Worker(script, adder, leave_after=1), Worker(script, adder)])
    alone = train_alone([rows(1, 1), rows(2), rows(1), rows(2)])
    for result in results:
        require_equal(result, alone)


def test_sum_reduction_adds_without_division() -> None:
    adder = SharedSum(2)
    results = run_workers(
        [
            Worker([rows(1, 2)], adder, reduction="sum"),
            Worker([rows(3)], adder, reduction="sum"),
        ]
    )
    model = build_model()
    for batch in (rows(1, 2), rows(3)):
        ((model(batch) - 2 * batch) ** 2).mean().backward()
    torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9).step()
    for result in results:
        require_equal(result, model)


@pytest.mark.parametrize("kind", ["explicit_clip", "before_step_clip"])
def test_clipping_sees_the_union_gradient_and_reaches_shadows(kind: str) -> None:
    results, _ = train_together([rows(1, 2), rows(3), rows(4)], [rows(5)], **{kind: 0.05})
    alone = train_alone([rows(1, 2, 5), rows(3), rows(4)], clip=0.05)
    for result in results:
        require_equal(result, alone)


def test_scheduler_and_adam_stay_in_step_on_a_shadow() -> None:
    def adam(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=0.05)

    def halving(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)

    results, _ = train_together(
        [rows(1, 2), rows(3), rows(4)], [rows(5)], build_optimizer=adam, build_scheduler=halving
    )
    model = build_model()
    optimizer = adam(model)
    scheduler = halving(optimizer)
    for batch in (rows(1, 2, 5), rows(3), rows(4)):
        optimizer.zero_grad()
        ((model(batch) - 2 * batch) ** 2).mean().backward()
        optimizer.step()
        scheduler.step()
    for result in results:
        require_equal(result, model)


def test_a_shadow_takes_rates_that_the_loop_sets_by_hand() -> None:
    def by_steps(optimizer: torch.optim.Optimizer, step: int) -> None:
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)

    script: list[Script] = [[rows(1), rows(3), rows(4)], [rows(5)]]
    results, _ = train_together(*script, set_rate=by_steps)
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for step, batch in enumerate((rows(1, 5), rows(3), rows(4))):
        by_steps(optimizer, step)
        optimizer.zero_grad()
        ((model(batch) - 2 * batch) ** 2).mean().backward()
        optimizer.step()
    for result in results:
        require_equal(result, model)


def test_rates_that_differ_between_workers_are_an_error_on_each() -> None:
    adder = SharedSum(2)

    def worker(rate: float) -> str:
        def fixed(optimizer: torch.optim.Optimizer, _step: int) -> None:
            optimizer.param_groups[0]["lr"] = rate

        with pytest.raises(UsageError) as caught:
            Worker([rows(1)], adder, set_rate=fixed)()
        return str(caught.value)

    texts = run_workers([lambda: worker(0.1), lambda: worker(0.2)])
    assert "0.1 here, 0.15 on average" in texts[0]
    assert "0.2 here" in texts[1]


def test_a_group_that_is_added_later_is_refused() -> None:
    model = build_model()
    optimizer = torch.optim.SGD(model[:1].parameters(), lr=0.1)
    Lockstep(FlatGradients(list(model[:1].parameters()), []), optimizer, None, SharedSum(2))
    optimizer.add_param_group({"params": list(model[2:].parameters())})
    with pytest.raises(UsageError, match="parameter group"):
        optimizer.step()


def test_half_accumulated_gradients_survive_shadow_steps() -> None:
    adder = SharedSum(2)
    slow = Worker([rows(1), NOTHING, rows(2)], adder, accumulate=2)
    fast = Worker([rows(5), rows(6)], adder)
    results = run_workers([slow, fast])
    reference = build_model()
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.01, momentum=0.9)

    def gradient(batch: torch.Tensor) -> list[torch.Tensor]:
        loss = ((reference(batch) - 2 * batch) ** 2).mean()
        return list(torch.autograd.grad(loss, list(reference.parameters())))

    first = gradient(rows(1))  # taken before the step that the other makes meanwhile
    for parameter, own in zip(reference.parameters(), gradient(rows(5)), strict=True):
        parameter.grad = own
    optimizer.step()
    second, other = gradient(rows(2)), gradient(rows(6))
    for index, parameter in enumerate(reference.parameters()):
        parameter.grad = (first[index] + second[index] + other[index]) / 3
    optimizer.step()
    for result in results:
        require_equal(result, reference)


def test_a_step_after_the_common_end_says_what_to_do() -> None:
    adder = SharedSum(2)

    def worker() -> str:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        flat = FlatGradients(list(model.parameters()), [])
        lockstep = Lockstep(flat, optimizer, None, adder)
        lockstep.finish(lambda: None)
        with pytest.raises(UsageError) as caught:
            optimizer.step()
        return str(caught.value)

    assert all("DistributedDataParallel" in text for text in run_workers([worker, worker]))


def test_a_closure_is_refused() -> None:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    lockstep = Lockstep(
        FlatGradients(list(model.parameters()), []), optimizer, None, SharedSum(2)
    )
    with pytest.raises(UsageError, match="closure"):
        optimizer.step(lambda: torch.tensor(0.0))
    lockstep.close()


def test_a_worker_waits_for_own_rows_as_long_as_idle_after_s_says_and_reports_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    def poll(wait_s: float) -> str | None:
        waits.append(wait_s)
        return "rows" if len(waits) == 4 else None

    monkeypatch.setattr("headrace.role.rounds.monotonic", lambda: sum(waits))
    model = build_model()
    lockstep = Lockstep(
        FlatGradients(list(model.parameters()), model.buffers()),
        torch.optim.SGD(model.parameters(), lr=0.1),
        None,
        SharedSum(2),  # of whom one never comes: a shadow round would not end
        idle_after_s=1.0,
    )
    assert lockstep.wait(poll) == "rows"
    assert waits == [REPORT_EVERY_S] * 4
