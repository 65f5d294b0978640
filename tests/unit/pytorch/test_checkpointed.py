"""A PyTorch worker that is restored trains as if nothing had happened, bit for bit."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from headrace.errors import PlanError, UsageError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.framework.process import StateRef
from headrace.pytorch import TorchContext, TorchEntry
from tests.unit.role.doubles import FakeLink, spec_in

SCHEMA = pa.schema([("x", pa.float32())])
ALONE = {"index": 0, "parallelism": 1, "cluster": {"worker": ("localhost",)}}


def batches(first: int, last: int) -> list[Item]:
    return [
        Batch(pa.record_batch([[float(i), i / 2, i / 3]], schema=SCHEMA))
        for i in range(first, last)
    ]


class Trainer:
    """Trains with everything that has a state: momentum, a schedule, dropout, running means."""

    def __init__(self, *, restored_by: str = "checkpointed") -> None:
        self.restored_by = restored_by
        self.weights: dict[str, torch.Tensor] = {}
        self.steps = 0

    def __call__(self, ctx: TorchContext) -> None:
        torch.manual_seed(5)
        model = nn.Sequential(
            nn.Linear(1, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1)
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.7)
        if self.restored_by == "checkpointed":
            model, optimizer, scheduler = ctx.checkpointed(
                model=model, optimizer=optimizer, scheduler=scheduler
            )
        if self.restored_by != "nothing":
            ctx.data_parallel(model, optimizer, scheduler)
        for batch in ctx.batches(rows=3):
            optimizer.zero_grad()
            loss: Any = ((model(batch["x"].unsqueeze(1)) - 1.0) ** 2).mean()
            loss.backward()
            optimizer.step()
            scheduler.step()
        self.weights = {name: value.clone() for name, value in model.state_dict().items()}
        self.steps = ctx.steps


def run(directory: Path, trainer: Any, items: list[Item], **spec: Any) -> MemoryFeed:
    feed = MemoryFeed(items, input_schema=SCHEMA)
    facts = {**ALONE, "host": "localhost", **spec}
    TorchEntry(trainer)(spec_in(directory, **facts), FakeLink(), feed=feed)
    return feed


def restored_from(directory: Path, state: bytes) -> dict[str, Any]:
    path = directory / "state"
    path.write_bytes(state)
    return {"is_restored": True, "states": (StateRef(path=str(path), index=0, parallelism=1),)}


def test_a_restored_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    undisturbed = Trainer()
    feed = run(
        tmp_path, undisturbed, [*batches(0, 5), Barrier(1), *batches(5, 9), Barrier(2), End()]
    )
    first, second, *_ = (state for _, state in feed.states)
    for state, begin in ((first, 5), (second, 9)):
        restored = Trainer()
        torch.rand(7)  # what else was drawn in the new process
        run(tmp_path, restored, [*batches(begin, 9), End()], **restored_from(tmp_path, state))
        assert restored.weights.keys() == undisturbed.weights.keys()
        for name, value in undisturbed.weights.items():
            assert torch.equal(restored.weights[name], value), name
        assert restored.steps == undisturbed.steps == 9


@pytest.mark.parametrize("restored_by", ["data_parallel alone", "nothing"])
def test_a_restored_training_that_names_nothing_is_refused(
    tmp_path: Path, restored_by: str
) -> None:
    with pytest.raises(PlanError, match="restored from a Flink checkpoint or savepoint"):
        run(tmp_path, Trainer(restored_by=restored_by), batches(0, 1), is_restored=True)


def test_a_loop_of_its_own_is_restored_as_well(tmp_path: Path) -> None:
    seen = []

    def train(ctx: TorchContext) -> None:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.checkpointed(model=model, optimizer=optimizer)
        for batch in ctx.batches(rows=3):
            loss: Any = model(batch["x"].unsqueeze(1)).mean()
            loss.backward()
            optimizer.step()
        seen.append(model.weight.item())

    feed = run(tmp_path, train, [*batches(0, 2), Barrier(1), End()])
    restored = restored_from(tmp_path, feed.states[0][1])
    run(tmp_path, train, [End()], **restored)
    run(tmp_path, train, [*batches(2, 3), End()], **restored)
    assert seen[1] == seen[0]
    assert seen[2] != seen[0]


def test_the_memory_of_a_restored_state_is_let_go_before_the_first_row(tmp_path: Path) -> None:
    """An optimizer that kept a tensor of it would keep all of it."""
    mapped: list[int] = []

    def train(ctx: TorchContext) -> None:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        ctx.checkpointed(model=model, optimizer=optimizer)
        ctx.data_parallel(model, optimizer)
        for batch in ctx.batches(rows=3):
            gc.collect()
            mapped.append(Path("/proc/self/maps").read_text().count(f"{tmp_path}/state"))
            optimizer.zero_grad()
            loss: Any = ((model(batch["x"].unsqueeze(1)) - 1.0) ** 2).mean()
            loss.backward()
            optimizer.step()

    feed = run(tmp_path, train, [*batches(0, 2), Barrier(1), End()])
    restored = restored_from(tmp_path, feed.states[0][1])
    for facts in (restored, {**restored, "restored_parallelism": 2}):
        run(tmp_path, train, [*batches(2, 4), End()], **facts)
    assert mapped == [0] * 6


def accumulating(ends: list[dict[str, torch.Tensor]]) -> Any:
    """Train with a step on every second batch."""

    def train(ctx: TorchContext) -> None:
        torch.manual_seed(5)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        ctx.merge_state(lambda former: {"batches": sum(each["batches"] for each in former)})
        ctx.checkpointed(model=model, optimizer=optimizer)
        ctx.data_parallel(model, optimizer)
        state = ctx.state
        state.setdefault("batches", 0)
        for batch in ctx.batches(rows=3):
            loss: Any = ((model(batch["x"].unsqueeze(1)) - 1.0) ** 2).mean()
            loss.backward()
            state["batches"] += 1
            if state["batches"] % 2 == 0:
                optimizer.step()
                optimizer.zero_grad()
        ends.append({name: value.clone() for name, value in model.state_dict().items()})

    return train


@pytest.mark.parametrize("workers", [1, 2])
def test_the_gradients_of_a_step_that_was_not_made_yet_go_on_in_one_worker(
    tmp_path: Path, workers: int
) -> None:
    """With two workers before, the other one had no row."""
    ends: list[dict[str, torch.Tensor]] = []
    train = accumulating(ends)
    feed = run(tmp_path, train, [*batches(0, 3), Barrier(1), *batches(3, 6), End()])
    states = [feed.states[0][1]]
    if workers == 2:
        states.append(run(tmp_path, train, [Barrier(1), End()]).states[0][1])
    refs = []
    for index, state in enumerate(states):
        path = tmp_path / f"state-{index}"
        path.write_bytes(state)
        refs.append(StateRef(path=str(path), index=index, parallelism=workers))
    facts: dict[str, Any] = {"is_restored": True, "restored_parallelism": workers}
    run(tmp_path, train, [*batches(3, 6), End()], **facts, states=tuple(refs))
    assert torch.equal(ends[-1]["weight"], ends[0]["weight"])
    last = run(tmp_path, train, [End()], **facts, states=tuple(refs)).states[-1][1]
    again = restored_from(tmp_path, last)
    run(tmp_path, train, [*batches(3, 6), End()], **again)
    assert not torch.equal(ends[-1]["weight"], ends[0]["weight"]), "no step will use them"


def test_a_model_of_another_shape_is_refused_with_torchs_words(tmp_path: Path) -> None:
    feed = run(tmp_path, keeping(nn.Linear(2, 1)), [*batches(0, 1), Barrier(1), End()])
    restored = restored_from(tmp_path, feed.states[0][1])
    with pytest.raises(PlanError, match=r"(?s)'model' \(a Linear\).*size mismatch for weight"):
        run(tmp_path, keeping(nn.Linear(3, 1)), [End()], **restored)


def keeping(model: nn.Module) -> Any:
    def entry(ctx: TorchContext) -> None:
        ctx.checkpointed(model=model)
        for _ in ctx.batches():
            pass

    return entry


def test_a_program_with_other_layers_is_told_every_entry_that_differs(tmp_path: Path) -> None:
    before = nn.ModuleDict({"body": nn.Linear(2, 3), "head": nn.Linear(3, 1)})
    feed = run(tmp_path, keeping(before), [*batches(0, 1), Barrier(1), End()])
    after = nn.ModuleDict({"body": nn.Linear(4, 3), "more": nn.Linear(3, 5, bias=False)})
    with pytest.raises(PlanError) as caught:
        run(tmp_path, keeping(after), [End()], **restored_from(tmp_path, feed.states[0][1]))
    lines = str(caught.value).splitlines()
    assert lines[-4:] == [
        "  missing in the checkpoint: more.weight, shape (5, 3)",
        "  unexpected in the checkpoint: head.weight, shape (1, 3)",
        "  unexpected in the checkpoint: head.bias, shape (1,)",
        "  body.weight: shape (3, 2) in the checkpoint, (3, 4) here",
    ]


class Renamed(nn.Module):
    """Other code with the same entries, and more that is in no checkpoint."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(9, 9)
        self.first = nn.Linear(2, 3)
        self.add_module("0", self.first)

    def state_dict(self, *_: Any, **__: Any) -> Any:
        whole = super().state_dict()
        return {name: value for name, value in whole.items() if name.startswith("0.")}

    def load_state_dict(
        self, state_dict: Any, strict: bool = True, assign: bool = False
    ) -> Any:
        del strict
        return super().load_state_dict(state_dict, strict=False, assign=assign)


def test_a_program_of_other_code_goes_on_where_the_entries_are_the_same(tmp_path: Path) -> None:
    first, after = nn.Linear(2, 3), Renamed()
    feed = run(tmp_path, keeping(nn.Sequential(first)), [*batches(0, 1), Barrier(1), End()])
    run(tmp_path, keeping(after), [End()], **restored_from(tmp_path, feed.states[0][1]))
    assert torch.equal(after.first.weight, first.weight)


def test_rows_that_a_loader_holds_back_are_refused(tmp_path: Path) -> None:
    def train(ctx: TorchContext) -> None:
        ctx.checkpointed(model=nn.Linear(1, 1))
        for _ in DataLoader(ctx.dataset(), batch_size=2):
            pass

    with pytest.raises(UsageError, match=r"DataLoader\(ctx\.dataset\(rows=n\), batch_size="):
        run(tmp_path, train, [*batches(0, 1), End()])
