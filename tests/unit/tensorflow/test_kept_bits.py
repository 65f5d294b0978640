"""What parameter servers get back behind a restore is bit for bit what was captured.

One worker, whose steps are deterministic, notes what the servers hold after each of them. It is
captured at a barrier, steps on, and ends with its servers. Others go on from the checkpoint, on
as many servers and on more; from seeds of their own, so what is not restored is other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from headrace.role import RoleEntry
from headrace.tensorflow import TFEntry, TFSettings
from headrace.tensorflow.ps_scope import is_on_server
from headrace.testing.worker import WorkerResult
from tests.unit.tensorflow.kept_runs import (
    Bits,
    KeptEntry,
    kept_bits,
    note_held,
    require_same,
    run,
    servers_of,
    table_of,
)

pytestmark = [
    pytest.mark.timeout(400),  # the first test waits for the runs
    # Keras 3.15 copies variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

BATCH, STEPS, AT = 4, 10, 5
"""Rows of a step; steps in all; steps before the barrier."""
CHECKPOINT = 3
SERVERS = 2
RESTORED_ON = (2, 3)


@dataclass
class Stepping:
    """An entry function; notes what the servers hold."""

    directory: Path
    seed: int

    def __call__(self, ctx: Any) -> None:
        keras.utils.set_random_seed(self.seed)
        with ctx.parameter_servers():
            model = keras.Sequential([keras.Input((1,)), *map(keras.layers.Dense, (8, 1))])
        optimizer = keras.optimizers.Adam(0.01)
        owners = {"model": model, "optimizer": optimizer}
        ctx.checkpointed(**owners)
        note_held(self.directory, "begun", **owners)
        variables = [*model.variables, *optimizer.variables]
        ctx.report(
            servers=len(servers_of(model, optimizer)),
            elsewhere=sum(not is_on_server(each) for each in variables),
        )
        for batch in ctx.batches(BATCH):
            x = tf.constant(np.array(batch["x"])[:, None])
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((model(x) - 1.0) ** 2)
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(gradients, model.trainable_variables)
            note_held(self.directory, f"step-{int(optimizer.iterations)}", **owners)


@dataclass(frozen=True)
class Runs:
    kept: dict[str, Bits]
    undisturbed: dict[int, dict[str, Bits]]
    begun: dict[int, dict[str, Bits]]
    steps: dict[int, dict[int, dict[str, Bits]]]
    results: dict[int, WorkerResult]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    def entry_of(name: str, seed: int, ids: list[int], **more: Any) -> KeptEntry:
        directory = tmp_path_factory.mktemp(name)
        role_entry: RoleEntry = TFEntry(Stepping(directory, seed), TFSettings())
        return KeptEntry(
            entry=role_entry,
            result_dir=directory,
            tables=[table_of(ids)],
            batch_rows=BATCH,
            **more,
        )

    def noted(entry: KeptEntry, steps: range) -> dict[int, dict[str, Bits]]:
        return {step: entry.noted(f"step-{step}") for step in steps}

    ids = list(range(1, STEPS * BATCH + 1))
    first = entry_of("first", 3, ids, rows_before=({CHECKPOINT: AT * BATCH},))
    results = {0: run(first, ps=SERVERS)[0]}
    begun, steps = {}, {}
    for ps in RESTORED_ON:
        restored = entry_of(
            f"restored-{ps}",
            7,
            ids[AT * BATCH :],
            rows_before=({},),
            restored={0: tuple(first.refs_of(CHECKPOINT))},
            restored_parallelism=1,
        )
        (results[ps],) = run(restored, ps=ps)
        begun[ps] = restored.noted("begun")
        steps[ps] = noted(restored, range(AT + 1, STEPS + 1))
    return Runs(
        kept=kept_bits(first.state_of(0, CHECKPOINT), "model", "optimizer"),
        undisturbed=noted(first, range(1, STEPS + 1)),
        begun=begun,
        steps=steps,
        results=results,
    )


def test_what_is_captured_is_what_the_servers_held_at_the_barrier(runs: Runs) -> None:
    require_same(runs.undisturbed[AT], runs.kept)
    names = [name.partition(" ")[2] for name in runs.kept["optimizer"]]
    assert names[:2] == ["iteration", "learning_rate"]
    assert len([name for name in names if name.endswith("momentum")]) == 4
    assert len([name for name in names if name.endswith("velocity")]) == 4


def test_every_variable_on_the_servers_is_another_one_after_further_steps(runs: Runs) -> None:
    for owner, variables in runs.undisturbed[AT].items():
        later = runs.undisturbed[STEPS][owner]
        same = [name for name, bits in variables.items() if later[name] == bits]
        assert [name for name in same if "learning_rate" not in name] == []


@pytest.mark.parametrize("ps", RESTORED_ON)
def test_restored_servers_hold_bit_for_bit_what_was_captured(runs: Runs, ps: int) -> None:
    require_same(runs.begun[ps], runs.kept)
    assert runs.results[ps].report["servers"] == ps
    assert runs.results[ps].report["elsewhere"] == 1  # the learning rate


@pytest.mark.parametrize("ps", RESTORED_ON)
def test_steps_behind_a_restore_are_bit_for_bit_those_of_an_undisturbed_training(
    runs: Runs, ps: int
) -> None:
    assert sorted(runs.steps[ps]) == list(range(AT + 1, STEPS + 1))
    for step, held in runs.steps[ps].items():
        require_same(held, runs.undisturbed[step])
