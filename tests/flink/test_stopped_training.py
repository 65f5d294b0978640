"""A training is stopped with a savepoint; what becomes of it in programs of other versions."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from torch import nn

import headrace.pytorch
from headrace.errors import JobFailedError, PlanError
from headrace.operator import JobHandle
from tests.waiting import until

from .jvm import make_environment
from .kept_state import Killer, Made, build, seed_all, train_on_rows, trained_on
from .test_kept_state import LIMIT_S, SMALL, report_of, wide_rows
from .test_stop import require_complete

cloudpickle.register_pickle_by_value(sys.modules[__name__])

pytestmark = pytest.mark.timeout(200)  # that of the first has the time of the fixture in it

ROWS = 4_000
OPTIONS = {
    "execution.checkpointing.interval": "100 ms",
    "taskmanager.memory.segment-size": "4kb",  # few rows are under way
}
RECOVERY_PATH = "execution.state-recovery.path"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """A training that was stopped.

    Attributes:
        savepoint: URI.
        steps: How many it has made, of a row each.
        weights: Of the model that it has saved.
    """

    savepoint: str
    steps: int
    weights: dict[str, torch.Tensor]


def start(
    folder: Path,
    *,
    make: Callable[[], Made] = build,
    per_second: int = 100_000,
    name: str = "trained",
    restored_from: str | None = None,
) -> JobHandle:
    """Submit a training that keeps its state; each start of its function leaves a file."""
    train, marks = train_on_rows(Killer(folder, folder, 0), make), str(folder)

    def entry(ctx: Any) -> None:
        Path(marks, f"attempt-{ctx.attempt}").touch()
        train(ctx)

    options = {**OPTIONS, "execution.checkpointing.dir": (folder / "cp").as_uri()}
    if restored_from is not None:
        options[RECOVERY_PATH] = restored_from
    t_env = make_environment(options)
    return headrace.pytorch.train(
        wide_rows(t_env, ROWS, per_second),
        entry,
        exchange=SMALL,
        output_dir=folder / "trained",
        name=name,
    ).submit()


def saved_in(folder: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(folder / "trained" / "model.pt")
    return weights


@pytest.fixture(scope="module")
def stopped(jvm: None, tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    folder = tmp_path_factory.mktemp("stopped")
    job = start(folder, per_second=60)
    until(lambda: job.status().rows_in > 500, "rows")
    result = job.stop(folder / "saved", timeout_s=LIMIT_S)
    return Stopped(
        savepoint=require_complete(result.savepoint, folder / "saved"),
        steps=int(result.status.nodes["worker-0"].report["steps"]),
        weights=saved_in(folder),
    )


def require_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


def test_the_model_of_the_last_row_is_saved(stopped: Stopped) -> None:
    assert 500 < stopped.steps < ROWS
    require_equal(stopped.weights, trained_on(stopped.steps))


class Affine(nn.Module):
    """Another kind of layer with the entries of `nn.Linear`."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


class Rewritten(nn.Module):
    """Other code for the model of `build`, and no first weights."""

    def __init__(self) -> None:
        super().__init__()
        self.add_module("0", Affine(2, 16))
        self.add_module("3", Affine(16, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, last = self.children()
        hidden = nn.functional.dropout(torch.tanh(first(x)), 0.5, self.training)
        scores: torch.Tensor = last(hidden)
        return scores


def build_rewritten() -> Made:
    model = Rewritten()
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def test_other_code_with_the_same_entries_goes_on_with_the_same_bits(
    stopped: Stopped, tmp_path: Path
) -> None:
    job = start(tmp_path, make=build_rewritten, restored_from=stopped.savepoint)
    assert report_of(job)["steps"] == ROWS
    require_equal(saved_in(tmp_path), trained_on(ROWS))


def build_other_layers() -> Made:
    seed_all()
    model = nn.Sequential(
        nn.Linear(3, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 1, bias=False), Affine(1, 1)
    )
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def test_other_layers_are_told_entry_by_entry_and_not_tried_again(
    stopped: Stopped, tmp_path: Path
) -> None:
    job = start(tmp_path, make=build_other_layers, restored_from=stopped.savepoint)
    with pytest.raises(JobFailedError) as caught:
        job.wait(timeout_s=LIMIT_S, show_progress=False)
    assert "'model' (a Sequential) does not take its state" in caught.value.cause
    assert caught.value.cause.splitlines()[-4:] == [
        "  missing in the checkpoint: 4.weight, shape (1, 1)",
        "  missing in the checkpoint: 4.bias, shape (1,)",
        "  unexpected in the checkpoint: 3.bias, shape (1,)",
        "  0.weight: shape (16, 2) in the checkpoint, (16, 3) here",
    ]
    (began,) = tmp_path.glob("attempt-*")
    assert began.name == f"attempt-{job.status().attempt}"


def test_a_savepoint_that_no_operator_of_the_plan_takes_is_told_with_what_to_do(
    stopped: Stopped, tmp_path: Path
) -> None:
    with pytest.raises(PlanError) as caught:
        start(tmp_path, name="another", restored_from=stopped.savepoint)
    told = str(caught.value)
    assert f"cannot be restored from {RECOVERY_PATH}={stopped.savepoint!r}" in told
    assert "the name of the cluster ('another')" in told
    assert "set `execution.state-recovery.ignore-unclaimed-state` to true" in told
    assert not list(tmp_path.glob("attempt-*"))


def test_a_savepoint_that_does_not_exist_is_told_with_its_path(tmp_path: Path) -> None:
    missing = (tmp_path / "saved" / "savepoint-1").as_uri()
    with pytest.raises(PlanError) as caught:
        start(tmp_path, restored_from=missing)
    told = str(caught.value)
    assert f"cannot be restored from {RECOVERY_PATH}={missing!r}" in told
    assert "Name the directory of a savepoint" in told
    assert "Cannot find checkpoint or savepoint file/directory" in told
    assert not list(tmp_path.glob("attempt-*"))
