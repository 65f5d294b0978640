"""Training with several workers equals one process on the union of the rows of each step.

Reference: plain torch in float64. Models in float64 must agree to 1e-9, one in float32 to 1e-4.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pyarrow.compute as pc
import pytest
import torch
from torch import nn

from headrace.testing import Pause, RunResult
from tests.unit.pytorch.recipes import RECIPES, Recipe
from tests.unit.pytorch.scenarios import (
    SCHEMA,
    Scenario,
    Steps,
    plain_loop,
    replay,
    require_same_model,
    run_all,
    tensors,
)
from tests.unit.pytorch.training import run

pytestmark = pytest.mark.timeout(300)

SPLITS: Mapping[int, Mapping[str, list[float] | None]] = {
    2: {"even": None, "90-10": [0.9, 0.1], "100-0": [1.0, 0.0], "0-100": [0.0, 1.0]},
    3: {"even": None, "60-30-10": [0.6, 0.3, 0.1], "100-0-0": [1.0, 0.0, 0.0]},
}
WHOLE_BATCHES = {2: [0.75, 0.25], 3: [0.5, 0.25, 0.25]}  # of 8 out of 96 rows
LOADERS = ("none", "batches", "rows")
EXACT = 1e-9


def scenarios_of(workers: int) -> dict[str, Scenario]:
    found: dict[str, Scenario] = {}
    for loader in LOADERS:
        for split_name, split in SPLITS[workers].items():
            found[f"{split_name}-{loader}"] = Scenario(split=split, loader=loader)
        pauses = [Pause(worker=workers - 1, after_rows=12, for_s=3.0)]
        found[f"idles-{loader}"] = Scenario(loader=loader, faults=pauses, recipe="adam")
        uneven = [0.7, 0.3] if workers == 2 else [0.5, 0.15, 0.35]
        found[f"epochs-{loader}"] = Scenario(loader=loader, split=uneven, epochs=3)
    for name, recipe in RECIPES.items():
        # A batch of one row has no variance; the mean of means is one over equal batches only.
        whole = recipe.accumulate > 1 or name == "normalised"
        found[f"with-{name}"] = Scenario(
            recipe=name,
            split=WHOLE_BATCHES[workers] if whole else uneven if recipe.zeroes else None,
            total_rows=96 if whole else 101,
            epochs=2 if recipe.scheduler else 1,
        )
    every = [1.0] + [0.0] * (workers - 1)
    found["no-rows"] = Scenario(total_rows=0)
    found["one-row"] = Scenario(total_rows=1, split=every, epochs=2)
    found["batch-larger-than-the-input"] = Scenario(rows=500, epochs=2)
    return found


CASES = [(workers, name) for workers in SPLITS for name in scenarios_of(workers)]


class Groups:
    """Runs the scenarios of a number of workers when the first of them is asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._results: dict[int, Mapping[str, RunResult]] = {}

    def result(self, workers: int, name: str) -> RunResult:
        if workers not in self._results:
            directory = self._directory / str(workers)
            directory.mkdir()
            scenarios = scenarios_of(workers)
            self._results[workers] = run_all(scenarios, workers=workers, directory=directory)
        return self._results[workers][name]


@pytest.fixture(scope="module")
def groups(tmp_path_factory: pytest.TempPathFactory) -> Groups:
    return Groups(tmp_path_factory.mktemp("groups"))


@pytest.mark.parametrize(("workers", "name"), CASES)
def test_several_workers_equal_one_process_on_the_union(
    groups: Groups, workers: int, name: str
) -> None:
    scenario = scenarios_of(workers)[name]
    result = groups.result(workers, name)
    recipe = RECIPES[scenario.recipe]
    steps = Steps.of(result)

    require_every_row(scenario, result)
    made = len(steps.parts) * recipe.steps_per_batch
    assert [report["steps"] for report in result.reports] == [made] * workers
    assert all(report == result.reports[0] for report in result.reports), "models differ"
    table = scenario.table()
    if scenario.recipe == "normalised":
        expected = replay_parts(recipe, tensors(table), steps)
    else:
        expected = replay(recipe, table, steps.unions())
    saved = torch.load(result.saved[0], weights_only=True)
    tolerance = EXACT if recipe.dtype == torch.float64 else 1e-4
    require_same_model(saved, expected.state_dict(), tolerance)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("workers", SPLITS)
def test_workers_that_have_rows_take_steps_together(
    groups: Groups, workers: int, loader: str
) -> None:
    steps = Steps.of(groups.result(workers, f"even-{loader}"))
    assert max(len(parts) for parts in steps.parts.values()) == workers


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("loader", LOADERS)
def test_one_worker_equals_the_plain_loop_bit_for_bit(
    tmp_path: Path, recipe: str, loader: str
) -> None:
    scenario = Scenario(recipe=recipe, loader=loader, total_rows=48, epochs=2)
    run(
        scenario,
        scenario.table(),
        output_schema=SCHEMA,
        output_dir=tmp_path,
        batch_rows=7,
        epochs=2,
    )
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    expected = plain_loop(scenario).state_dict()
    assert saved.keys() == expected.keys()
    assert all(torch.equal(saved[name], value) for name, value in expected.items())


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize("workers", SPLITS)
def test_a_worker_that_idles_does_not_hold_up_the_others(
    groups: Groups, workers: int, loader: str
) -> None:
    result = groups.result(workers, f"idles-{loader}")
    of_the_idle = result.workers[-1].emitted
    assert of_the_idle is not None
    taken = sorted(set(of_the_idle["step"].to_pylist()))
    shared = [step for step in range(taken[0], taken[-1]) if step not in taken]
    assert shared, "the others waited for it"


def require_every_row(scenario: Scenario, result: RunResult) -> None:
    """Every row was trained on once in each epoch, whoever had it."""
    assert result.emitted is not None
    ids = sorted(result.emitted["id"].to_pylist())
    dropped = 0
    if RECIPES[scenario.recipe].accumulate > 1:  # an incomplete last step is never made
        dropped = scenario.total_rows - len(ids)
        assert 0 <= dropped < len(result.workers) * 3 * scenario.rows
        assert len(set(ids)) == len(ids)
    else:
        assert ids == sorted([*range(scenario.total_rows)] * scenario.epochs)
    assert sum(result.rows_in) == scenario.total_rows
    if scenario.loader != "rows":  # a DataLoader's batch may reach across the end of an epoch
        for epoch in range(scenario.epochs):
            of_epoch = pc.filter(result.emitted["id"], pc.equal(result.emitted["epoch"], epoch))
            assert len(set(of_epoch.to_pylist())) == scenario.total_rows - dropped


def replay_parts(recipe: Recipe, columns: dict[str, torch.Tensor], steps: Steps) -> nn.Module:
    """Train one process on each worker's part of a step, and weight them by their rows.

    For batch normalisation: a worker normalises over its own rows, as in torch's DDP; the
    running means and variances are averaged over the rows.
    """
    model = recipe.model()
    optimizer = recipe.optimizer(model)
    for step in sorted(steps.parts):
        parts = list(steps.parts[step].values())
        total = sum(map(len, parts))
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        means = {name: torch.zeros_like(buffer) for name, buffer in before.items()}
        optimizer.zero_grad()
        for ids in parts:
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
            batch = {name: column[ids] for name, column in columns.items()}
            recipe.backward(model, batch, share=len(ids) / total)
            for name, buffer in model.named_buffers():
                if buffer.is_floating_point():
                    means[name] += buffer * len(ids) / total
        for name, buffer in model.named_buffers():
            buffer.copy_(means[name] if buffer.is_floating_point() else before[name] + 1)
        optimizer.step()
    return model
