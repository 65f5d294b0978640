"""Optimizers whose variables on parameter servers are in no checkpoint are named in the log."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from headrace.role import RoleEntry
from headrace.tensorflow import TFEntry, TFSettings
from tests.unit.tensorflow.kept_runs import KeptEntry, run, table_of, warnings_of

pytestmark = pytest.mark.timeout(200)

BATCH = 4
BARRIERS = {3: 8, 4: 16}
"""How many rows come before the barrier of each checkpoint."""


@dataclass
class Unnamed:
    """An entry function; one optimizer is named, one is not and is built, one is neither."""

    directory: Path

    def __call__(self, ctx: Any) -> None:
        with ctx.parameter_servers():
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        trained = model.trainable_variables
        named, early = keras.optimizers.Adam(0.01), keras.optimizers.RMSprop(0.01)
        late = keras.optimizers.SGD(0.01, momentum=0.5)
        early.build(trained)
        ctx.checkpointed(model=model, optimizer=named)
        told: dict[str, list[str]] = {}
        with warnings_of("headrace.tensorflow.keeping") as warnings:
            for number, batch in enumerate(ctx.batches(BATCH)):
                told[f"before step {number}"] = warnings[:]
                x = tf.constant(np.array(batch["x"])[:, None])
                for optimizer in (named, early, late):
                    with tf.GradientTape() as tape:
                        loss = tf.reduce_mean((model(x) - 1.0) ** 2)
                    optimizer.apply(tape.gradient(loss, trained), trained)
        told["at last"] = warnings
        (self.directory / "told.json").write_text(json.dumps(told))


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> KeptEntry:
    directory = tmp_path_factory.mktemp("unnamed")
    role_entry: RoleEntry = TFEntry(Unnamed(directory), TFSettings())
    made = KeptEntry(
        entry=role_entry,
        result_dir=directory,
        tables=[table_of(list(range(1, 25)))],
        batch_rows=BATCH,
        rows_before=(BARRIERS,),
    )
    run(made, ps=1)
    return made


@pytest.fixture(scope="module")
def told(entry: KeptEntry) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((entry.result_dir / "told.json").read_text())
    return found


def test_an_unnamed_optimizer_that_is_built_is_told_of_before_the_first_row(
    told: dict[str, list[str]],
) -> None:
    (warning,) = told["before step 0"]
    assert re.fullmatch(
        r"ctx\.checkpointed: no optimizer that was named holds the variables "
        r"'0-kernel/RMSprop-0/0-iteration', '0-kernel/RMSprop-0/1-\w*kernel_velocity', "
        r"'0-kernel/RMSprop-0/2-\w*bias_velocity', which an optimizer has made on the "
        r"parameter servers: they are in no checkpoint, and begin anew behind a restored one, "
        r"as does its learning rate\. Name the optimizer as well: "
        r"ctx\.checkpointed\(model=model, optimizer=optimizer\)",
        warning,
    )


def test_one_that_is_built_by_its_first_step_is_told_of_at_the_first_checkpoint(
    told: dict[str, list[str]],
) -> None:
    assert len(told["before step 1"]) == 1  # the step has built it, and no barrier came
    _, warning = told["before step 2"]
    assert re.search(r"'0-kernel/SGD-0/1-\w*kernel_momentum'", warning)
    assert "RMSprop" not in warning


def test_each_is_told_of_once_and_what_is_named_never(
    entry: KeptEntry, told: dict[str, list[str]]
) -> None:
    assert {
        checkpoint: entry.state_of(0, checkpoint)["objects"].keys() for checkpoint in (3, 4)
    } == {
        3: {"model", "optimizer"},
        4: {"model", "optimizer"},
    }
    assert len(told["at last"]) == 2
    assert not any("Adam" in warning for warning in told["at last"])
