"""What `export_to` writes is the model of its checkpoint, and `TorchModel` serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from headrace.config import TimeoutConfig
from headrace.errors import ConfigError, UsageError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.pytorch import TorchContext, TorchEntry, TorchModel, TorchSettings
from headrace.role.state_format import decode_state
from tests.unit.role.doubles import FakeLink, spec_in
from tests.waiting import until

pytestmark = pytest.mark.timeout(90)  # the first export imports torch's compiler

SCHEMA = pa.schema([("x", pa.float32())])
FACTS: dict[str, Any] = {
    "index": 0,
    "parallelism": 1,
    "cluster": {"worker": ("localhost",)},
    "timeouts": TimeoutConfig(stop_timeout_s=120),  # half is for the version that is due last
}
X = torch.arange(6.0).reshape(3, 2)


def build() -> nn.Sequential:
    """A tied weight, a buffer, and layers that differ in evaluation."""
    torch.manual_seed(3)
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm1d(2), nn.Dropout(0.5), second)


def batch(*xs: float) -> Batch:
    return Batch(pa.record_batch([list(xs)], schema=SCHEMA))


def trains(
    model: nn.Module, choose: Callable[[TorchContext, nn.Module], object] = lambda *_: None
) -> Any:
    def entry(ctx: TorchContext) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.checkpointed(optimizer=optimizer, model=model)
        choose(ctx, model)
        ctx.data_parallel(model, optimizer)
        for rows in ctx.batches(rows=2):
            optimizer.zero_grad()
            x = rows["x"].repeat(2, 1).T
            loss: Any = (model(x) - 1.0).square().mean()
            loss.backward()
            optimizer.step()

    return entry


class Job:
    """Two checkpoints, the first of which completes when the second is under way."""

    def __init__(
        self, folder: Path, entry: Any, *, suffix: str = ".pt", keep_exports: int = 3
    ) -> None:
        self.folder = folder
        self.served = folder / "served"
        self.latest = self.served / f"latest{suffix}"
        self.link = FakeLink()
        self.feed = MemoryFeed(self._items(), input_schema=SCHEMA)
        settings = TorchSettings(export_to=self.served, keep_exports=keep_exports)
        TorchEntry(entry, settings)(
            spec_in(folder, host="localhost", **FACTS), self.link, feed=self.feed
        )

    def _items(self) -> Iterator[Item]:
        yield batch(1, 2)
        yield Barrier(4)
        yield batch(3, 4)
        yield Barrier(5)
        self.feed.complete(4)
        until(lambda: "checkpoint-4" in str(self.latest.resolve()), "the version")
        yield batch(5, 6)
        self.feed.complete(5)
        yield End()

    def state(self, checkpoint_id: int) -> Any:
        content = dict(self.feed.states)[checkpoint_id]
        return decode_state(memoryview(bytearray(content)))["objects"]["model"]


def served_by(path: Path, module: Any = None) -> torch.Tensor:
    loaded = TorchModel(path, module).load(None)
    return torch.as_tensor(np.asarray(loaded([loaded.tensor(X.numpy())], {})))


def expected(state: Any) -> torch.Tensor:
    model = build().eval()
    model.load_state_dict(state)
    with torch.no_grad():
        found: torch.Tensor = model(X)
    return found


def test_each_version_is_the_model_of_its_checkpoint(tmp_path: Path) -> None:
    model = build()
    job = Job(tmp_path, trains(model), keep_exports=2)
    names = sorted(each.name for each in job.served.iterdir())
    assert names == ["checkpoint-4.pt", "checkpoint-5.pt", "latest.pt"]
    for checkpoint_id in (4, 5):
        version = torch.load(job.served / f"checkpoint-{checkpoint_id}.pt", weights_only=True)
        state = job.state(checkpoint_id)
        assert version.keys() == state.keys()
        for name, value in version.items():
            assert torch.equal(value, state[name]), name
    assert not torch.equal(job.state(4)["0.weight"], job.state(5)["0.weight"])
    assert torch.equal(served_by(job.latest, build), expected(job.state(5)))
    assert job.link.reports[-1][0]["exported_checkpoint"] == 5


def test_before_the_first_row_there_is_the_model_that_training_begins_with(
    tmp_path: Path,
) -> None:
    seen = []

    def entry(ctx: TorchContext) -> None:
        model = build()
        ctx.checkpointed(only=model)
        rows = ctx.batches(rows=2)
        seen.append(served_by(tmp_path / "served" / "latest.pt", build))
        for _ in rows:
            pass

    torch.manual_seed(3)
    job = Job(tmp_path, entry)
    assert torch.equal(seen[0], expected(build().state_dict()))
    assert (job.served / "initial.pt").exists()


def test_a_version_that_is_there_already_is_served_until_the_next(tmp_path: Path) -> None:
    (tmp_path / "served").mkdir()
    torch.save({"former": torch.ones(1)}, tmp_path / "served" / "latest.pt")
    job = Job(tmp_path, trains(build()))
    assert not (job.served / "initial.pt").exists()
    assert job.latest.resolve().name == "checkpoint-5.pt"


def test_a_graph_of_torch_export_is_written_for_any_number_of_rows(tmp_path: Path) -> None:
    model = build()
    export = trains(model, lambda ctx, each: ctx.exported(each, example=(torch.ones(2, 2),)))
    job = Job(tmp_path, export, suffix=".pt2")
    assert (job.served / "initial.pt2").exists()
    torch.testing.assert_close(served_by(job.latest), expected(job.state(5)))
    torch.testing.assert_close(
        served_by(job.served / "checkpoint-4.pt2"), expected(job.state(4))
    )
    assert model.training, "the model that is trained is another one"


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_scripted_module_is_written_as_a_whole(tmp_path: Path) -> None:
    job = Job(tmp_path, trains(torch.jit.script(build())))
    torch.testing.assert_close(served_by(job.latest), expected(job.state(5)))


def test_beside_an_earlier_jobs_versions_a_model_is_tried_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Job(tmp_path, trains(build()))
    before = sorted(each.name for each in (tmp_path / "served").iterdir())
    seen: list[Path] = []

    def refuse(_: object, state: object, path: Path) -> None:
        seen.append(path)
        msg = "cannot be written"
        raise ValueError(msg)

    monkeypatch.setattr("headrace.pytorch.servable.StateForm.write", refuse)
    with pytest.raises(ValueError, match="cannot be written"):
        Job(tmp_path, trains(build()))
    assert len(seen) == 1
    assert sorted(each.name for each in (tmp_path / "served").iterdir()) == before


@pytest.mark.parametrize(
    ("entry", "error", "told"),
    [
        pytest.param(
            lambda ctx: ctx.batches(), UsageError, "which model.*model=", id="nothing is named"
        ),
        pytest.param(
            lambda ctx: [ctx.checkpointed(a=nn.Linear(1, 1), b=nn.Linear(1, 1)), ctx.batches()],
            UsageError,
            "which model.*ctx.exported",
            id="two models",
        ),
        pytest.param(
            lambda ctx: [ctx.checkpointed(a=nn.Linear(1, 1)), ctx.exported(nn.Linear(1, 1))],
            UsageError,
            "ctx.checkpointed has named .'a'.",
            id="a stranger",
        ),
        pytest.param(
            trains(build(), lambda ctx, each: ctx.exported(each, example=(torch.ones(1, 2),))),
            ConfigError,
            r"is \(1, 2\); each must be a tensor of 2 rows or more",
            id="one row",
        ),
        pytest.param(
            trains(build(), lambda ctx, each: ctx.exported(each, example=(torch.ones(2, 9),))),
            ConfigError,
            "cannot export the model with this example",
            id="another shape",
        ),
    ],
)
def test_what_cannot_be_exported_is_told_before_the_first_row(
    tmp_path: Path, entry: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        Job(tmp_path, entry)


def test_the_first_version_that_cannot_be_written_fails_the_process(tmp_path: Path) -> None:
    tmp_path.joinpath("served").touch()
    with pytest.raises(ConfigError, match=r"export_to=.*cannot write there"):
        Job(tmp_path, trains(build()))
