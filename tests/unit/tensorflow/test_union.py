"""Several workers equal one process on the union of the rows of each step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from headrace import testing
from headrace.testing import Pause, RunResult
from tests.unit.tensorflow.recipes import RECIPES
from tests.unit.tensorflow.scenarios import (
    SAVED,
    SCHEMA,
    Scenario,
    Steps,
    replay,
    replay_parts,
    run_all,
)

pytestmark = [
    pytest.mark.timeout(600),  # the first test of a group waits for all its scenarios
    # Keras 3.15 says so at the end of each pass over a dataset whose length is unknown.
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
    # It copies variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

WORKERS = 2
LOADERS = ("fit-1", "fit-10", "dataset", "batches")
LOOKERS = ("fit-1", "dataset")
EXACT = 1e-9
ROUNDED = 1e-7  # a schedule computes the rate in float32
_LOOKS = Scenario(looks_first=True, total_rows=96, rows=8, arrive=24)
_IDLES = [Pause(worker=1, after_rows=12, for_s=1.0)]


def scenarios_of_two() -> dict[str, Scenario]:
    found: dict[str, Scenario] = {}
    for loader in LOADERS:
        found[f"even-{loader}"] = Scenario(loader=loader, recipe="adam", rows=10)
        found[f"epochs-{loader}"] = Scenario(loader=loader, split=[0.7, 0.3], epochs=3)
        found[f"empty-{loader}"] = Scenario(loader=loader, split=[0.0, 1.0], recipe="sgd")
        found[f"idles-{loader}"] = Scenario(loader=loader, recipe="adam", faults=_IDLES)
    for name in sorted(RECIPES.keys() - {"momentum", "sgd", "adam"}):  # they were above
        # A batch of one row has no variance.
        whole = name == "normalised"
        found[f"with-{name}"] = Scenario(
            recipe=name, split=[0.75, 0.25], total_rows=96 if whole else 101, epochs=2
        )
    found["no-rows-batches"] = Scenario(total_rows=0, loader="batches")
    found["one-row-dataset"] = Scenario(
        total_rows=1, split=[1.0, 0.0], epochs=2, loader="dataset"
    )
    return found


SCENARIOS = scenarios_of_two()
THREE = {
    "uneven": Scenario(recipe="adam", loader="fit-10", split=[0.6, 0.3, 0.1], epochs=2),
    "empty": Scenario(loader="dataset", split=[0.0, 0.7, 0.3]),
    "idles": Scenario(recipe="adam", loader="batches", faults=_IDLES),
}
RATE = Scenario(recipe="sgd", rate_of_worker_1=0.001, rows=10)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, RunResult]:
    directory = tmp_path_factory.mktemp("two")
    everything = {
        **SCENARIOS,
        "rate": RATE,
        "leaves-dataset": Scenario(loader="dataset", leave_after=(2, None)),
        "leaves-batches": Scenario(loader="batches", leave_after=(2, None)),
        **{f"looks-{loader}": replace(_LOOKS, loader=loader) for loader in LOOKERS},
    }
    return run_all(everything, workers=WORKERS, directory=directory)


@pytest.fixture(scope="module")
def results_of_three(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, RunResult]:
    return run_all(THREE, workers=3, directory=tmp_path_factory.mktemp("three"))


@pytest.fixture(autouse=True, scope="module")
def double_precision() -> Iterator[None]:
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.mark.parametrize("name", SCENARIOS)
def test_two_workers_equal_one_process_on_the_union(
    results: Mapping[str, RunResult], name: str
) -> None:
    require_union(SCENARIOS[name], results[name])


@pytest.mark.parametrize("name", THREE)
def test_three_workers_equal_one_process_on_the_union(
    results_of_three: Mapping[str, RunResult], name: str
) -> None:
    require_union(THREE[name], results_of_three[name])


def require_union(scenario: Scenario, result: RunResult) -> None:
    steps = Steps.of(result)
    assert result.emitted is not None
    ids = sorted(result.emitted["id"].to_pylist())
    assert ids == sorted([*range(scenario.total_rows)] * scenario.epochs)
    assert sum(result.rows_in) == scenario.total_rows
    require_same_models(result, steps=len(steps.parts))

    play = replay_parts if scenario.recipe == "normalised" else replay
    tolerance = ROUNDED if "scheduled" in scenario.recipe else EXACT
    require_saved(result, play(RECIPES[scenario.recipe], scenario.table(), steps), tolerance)


@pytest.mark.parametrize("loader", LOADERS)
def test_workers_that_have_rows_take_steps_together(
    results: Mapping[str, RunResult], loader: str
) -> None:
    steps = Steps.of(results[f"even-{loader}"])
    assert max(len(parts) for parts in steps.parts.values()) == WORKERS


@pytest.mark.parametrize("loader", LOADERS)
def test_a_worker_that_idles_does_not_hold_up_the_other(
    results: Mapping[str, RunResult], loader: str
) -> None:
    of_the_idle = results[f"idles-{loader}"].workers[1].emitted
    assert of_the_idle is not None
    taken = sorted(set(of_the_idle["step"].to_pylist()))
    shared = [step for step in range(taken[0], taken[-1]) if step not in taken]
    assert shared, "the other one waited for it"


def test_all_follow_a_learning_rate_that_one_worker_has_changed(
    results: Mapping[str, RunResult],
) -> None:
    result = results["rate"]
    require_same_models(result, steps=len(Steps.of(result).parts))
    assert result.reports[0]["rate"] < 0.09  # the mean of 0.1 and 0.001, or less


@pytest.mark.parametrize("loader", LOOKERS)
def test_steps_are_exact_after_a_batch_that_was_only_looked_at(
    results: Mapping[str, RunResult], loader: str
) -> None:
    result = results[f"looks-{loader}"]
    steps = Steps.of(result)
    assert result.emitted is not None
    looked_at = [*range(8), *range(24, 32)]  # the first batch of each worker
    trained = [i for i in range(96) if i not in looked_at]
    assert sorted(result.emitted["id"].to_pylist()) == trained
    require_same_models(result, steps=len(steps.parts))
    require_saved(result, replay(RECIPES[_LOOKS.recipe], _LOOKS.table(), steps), EXACT)


@pytest.mark.parametrize("loader", ["dataset", "batches"])
def test_a_worker_that_leaves_its_loop_lets_the_other_finish(
    results: Mapping[str, RunResult], loader: str
) -> None:
    result = results[f"leaves-{loader}"]
    assert [each.emitted.num_rows for each in result.workers if each.emitted] == [16, 48]
    assert result.reports[1]["steps"] >= 6


@pytest.mark.parametrize("loader", LOADERS)
def test_one_worker_equals_the_plain_loop_bit_for_bit(tmp_path: Path, loader: str) -> None:
    scenario = Scenario(recipe="adam", loader=loader, total_rows=45, epochs=2)
    table = scenario.table()
    testing.run(
        scenario,
        table,
        framework="tensorflow",
        output_schema=SCHEMA,
        output_dir=tmp_path,
        batch_rows=7,
        epochs=2,
    )
    model = RECIPES["adam"].model()
    model.load_weights(tmp_path / SAVED)
    for mine, plain in zip(model.get_weights(), plain_weights(scenario, table), strict=True):
        assert np.array_equal(mine, plain)


def plain_weights(scenario: Scenario, table: pa.Table) -> list[Any]:
    """Train the scenario's model on the rows in memory, without Headrace."""
    recipe = RECIPES[scenario.recipe]
    model, optimizer = recipe.model(), recipe.optimizer()
    x, y = np.stack(table["x"].to_pylist()), table["y"].to_numpy()
    word = table["word"].to_numpy()
    pairs = ({"x": x, "word": word}, y)
    data = tf.data.Dataset.from_tensor_slices(pairs).batch(scenario.rows)
    if scenario.loader.startswith("fit"):
        per_execution = int(scenario.loader.partition("-")[2])
        model.compile(optimizer, recipe.loss(), steps_per_execution=per_execution)
        column = data.map(lambda features, label: (features, label[:, None]))
        model.fit(column, epochs=scenario.epochs, shuffle=False, verbose=0)
        return list(model.get_weights())
    train_step = scenario.train_step(recipe, model, optimizer)
    for _ in range(scenario.epochs):
        for features, label in data:
            train_step(features, label)
    return list(model.get_weights())


def require_same_models(result: RunResult, *, steps: int) -> None:
    assert [report["steps"] for report in result.reports] == [steps] * len(result.workers)
    assert all(report == result.reports[0] for report in result.reports), "models differ"


def require_saved(result: RunResult, expected: keras.Model, tolerance: float) -> None:
    weights = [np.array(each) for each in expected.get_weights()]
    expected.load_weights(result.saved[0])
    for mine, saved in zip(weights, expected.get_weights(), strict=True):
        np.testing.assert_allclose(saved, mine, rtol=0, atol=tolerance)
