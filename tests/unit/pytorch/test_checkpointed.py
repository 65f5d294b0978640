"""A PyTorch worker that is restored trains as if nothing had happened, bit for bit."""

from __future__ import annotations

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


def test_a_model_of_another_shape_is_refused_with_torchs_words(tmp_path: Path) -> None:
    def keep(model: nn.Module) -> Any:
        def entry(ctx: TorchContext) -> None:
            ctx.checkpointed(model=model)
            for _ in ctx.batches():
                pass

        return entry

    feed = run(tmp_path, keep(nn.Linear(2, 1)), [*batches(0, 1), Barrier(1), End()])
    restored = restored_from(tmp_path, feed.states[0][1])
    with pytest.raises(PlanError, match=r"(?s)'model' \(a Linear\).*size mismatch for weight"):
        run(tmp_path, keep(nn.Linear(3, 1)), [End()], **restored)


def test_rows_that_a_loader_holds_back_are_refused(tmp_path: Path) -> None:
    def train(ctx: TorchContext) -> None:
        ctx.checkpointed(model=nn.Linear(1, 1))
        for _ in DataLoader(ctx.dataset(), batch_size=2):
            pass

    with pytest.raises(UsageError, match=r"DataLoader\(ctx\.dataset\(rows=n\), batch_size="):
        run(tmp_path, train, [*batches(0, 1), End()])
