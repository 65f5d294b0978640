"""Variables on parameter servers are kept as of each worker's barrier; real processes.

Three runs: two workers `fit` in two passes on two servers, with barriers at different rows; two
more go on from there by a loop of their own, on one server; and one alone, as behind one pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pytest
import tensorflow as tf

from headrace.framework.process import StateRef
from headrace.role import RoleEntry
from headrace.role.state_format import encode_state
from headrace.tensorflow import TFEntry, TFSettings
from headrace.testing.worker import WorkerResult
from tests.unit.tensorflow.kept_runs import (
    Bits,
    KeptEntry,
    decoded,
    kept_bits,
    note_held,
    require_same,
    run,
    table_of,
    warnings_of,
)
from tests.unit.tensorflow.test_common_barrier import AT_LAST
from tests.waiting import pause_for

pytestmark = [
    pytest.mark.timeout(400),  # the first test waits for the runs
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
    # Keras 3.15 copies variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

BATCH, EPOCHS = 4, 2
ROWS = (60, 40)
"""Rows of each worker, numbered through."""
BEFORE = ({3: 8, 4: 48}, {3: 20, 4: 24})
"""By worker: how many rows come before the barrier of each checkpoint."""


def ids_of(worker: int, first: int = 0, last: int | None = None) -> list[int]:
    begin = 1 + sum(ROWS[:worker])
    return list(range(begin, begin + ROWS[worker]))[first:last]


class Counting(keras.Sequential):  # type: ignore[misc] # has no types
    """Its step also counts the rows and adds up their ids, on the servers."""

    def train_step(self, data: Any) -> Any:
        x, ids = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(x, training=True) - 1.0) ** 2)
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply(gradients, self.trainable_variables)
        self.rows.assign_add(tf.shape(ids, tf.int64)[0])
        self.ids.assign_add(tf.reduce_sum(ids))
        return {"loss": loss}


def build(ctx: Any) -> Any:
    keras.utils.set_random_seed(3)
    with ctx.parameter_servers():
        model = Counting([keras.Input((1,)), keras.layers.Dense(8), keras.layers.Dense(1)])
        model.rows = tf.Variable(0, dtype=tf.int64, trainable=False, name="rows")
        model.ids = tf.Variable(0, dtype=tf.int64, trainable=False, name="ids")
        model.unnamed = tf.Variable(0, name="unnamed")
    model.compile(keras.optimizers.Adam(0.01))
    return model


@dataclass
class Training:
    """An entry function; the slower worker is another one at each barrier."""

    loop: str
    directory: Path

    def __call__(self, ctx: Any) -> None:
        model = build(ctx)
        parts = {"model": model, "optimizer": model.optimizer}
        ctx.checkpointed(**parts, rows=model.rows, ids=model.ids)
        if not ctx.is_restored:
            model.optimizer.learning_rate.assign(0.01 * (ctx.index + 1))
        ctx.report(begun=int(model.rows), rate=float(model.optimizer.learning_rate))
        if ctx.is_restored:
            self.note_before_any_step(ctx, model)
        with warnings_of("headrace.tensorflow.keeping") as told:
            ctx.open_reader(rows=BATCH, epochs=ctx.epochs)
        ctx.report(warned=sum("holds the variables '6-unnamed'," in each for each in told))
        if self.loop == "fit":
            slow = keras.callbacks.LambdaCallback(on_train_batch_end=lambda *_, logs: lag(ctx))
            rows = ctx.dataset(BATCH, features=["x"], label="id")
            for e in range(ctx.epoch, ctx.epochs):
                passes = {"epochs": e + 1, "initial_epoch": e}
                model.fit(rows, **passes, verbose=0, shuffle=False, callbacks=[slow])
        else:
            for batch in ctx.batches(BATCH):
                x = tf.constant(np.array(batch["x"])[:, None])
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((model(x) - 1.0) ** 2)
                gradients = tape.gradient(loss, model.trainable_variables)
                model.optimizer.apply(gradients, model.trainable_variables)
                for each in batch["id"].tolist():  # sent, and not waited for
                    model.rows.assign_add(1)
                    model.ids.assign_add(each)
        if ctx.index == 0:
            ctx.report(
                rows=int(model.rows),
                ids=int(model.ids),
                steps=int(model.optimizer.iterations),
            )

    def note_before_any_step(self, ctx: Any, model: Any) -> None:
        """Note what each worker finds on the servers; nobody steps before all have."""
        owners = {"model": model, "optimizer": model.optimizer}
        note_held(self.directory, f"begun-{ctx.index}", **owners)
        ctx.publish(f"noted-{ctx.index}", "yes")
        for index in range(ctx.parallelism):
            ctx.lookup(f"noted-{index}", 60.0)


def lag(ctx: Any) -> None:
    if ctx.index == 1:
        pause_for(0.02)


@dataclass(frozen=True)
class Runs:
    first: list[WorkerResult]
    states: dict[int, list[dict[str, Any]]]
    restored: list[WorkerResult]
    restored_states: dict[int, list[dict[str, Any]]]
    restored_held: list[dict[str, Bits]]
    alone_held: dict[str, Bits]
    alone: list[WorkerResult]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    def entry_of(
        name: str, loop: str, *ids: list[int], epochs: int = EPOCHS, **more: Any
    ) -> KeptEntry:
        directory = tmp_path_factory.mktemp(name)
        role_entry: RoleEntry = TFEntry(Training(loop, directory), TFSettings(epochs=epochs))
        return KeptEntry(
            entry=role_entry,
            result_dir=directory,
            tables=[table_of(each) for each in ids],
            batch_rows=BATCH,
            **more,
        )

    def states_of(entry: KeptEntry, *checkpoints: int) -> dict[int, list[dict[str, Any]]]:
        return {c: [entry.state_of(n, c) for n in (0, 1)] for c in checkpoints}

    first = entry_of("first", "fit", ids_of(0), ids_of(1), rows_before=BEFORE)
    results = run(first, ps=2)
    refs = first.refs_of(3)
    restored = entry_of(
        "restored",
        "batches",
        *(ids_of(worker, BEFORE[worker][3]) for worker in (0, 1)),
        rows_before=({5: 8}, {5: 4}),
        restored={0: (refs[0],), 1: (refs[1],)},
        restored_parallelism=2,
    )
    restored_results = run(restored, ps=1)
    alone = entry_of(
        "alone",
        "batches",
        ids_of(0, BEFORE[0][4]) + ids_of(1, BEFORE[1][4]),
        epochs=1,
        rows_before=({},),
        restored={0: tuple(map(of_one_pass, first.refs_of(4)))},
        restored_parallelism=2,
    )
    alone_results = run(alone, ps=1)
    return Runs(
        first=results,
        states=states_of(first, 3, 4, AT_LAST),
        restored=restored_results,
        restored_states=states_of(restored, 5),
        restored_held=[restored.noted(f"begun-{n}") for n in (0, 1)],
        alone_held=alone.noted("begun-0"),
        alone=alone_results,
    )


def of_one_pass(ref: StateRef) -> StateRef:
    """Return the same state without the rows of an input that is read several times."""
    assert ref.path is not None
    path = Path(ref.path)
    encoded = encode_state({**decoded(path), "parts": {}})
    content = bytearray(encoded.size_bytes)
    encoded.write_to(memoryview(content))
    place = path.with_suffix(".one-pass")
    place.write_bytes(content)
    return msgspec.structs.replace(ref, path=str(place))


ALL_IDS = sum(ids_of(0)) + sum(ids_of(1))
STEPS = sum(ROWS) // BATCH
ALL: tuple[float, float, float] = (EPOCHS * sum(ROWS), EPOCHS * ALL_IDS, EPOCHS * STEPS)
"""Rows, the sum of their ids, and steps of all passes."""


def test_undisturbed_workers_count_every_row(runs: Runs) -> None:
    report = runs.first[0].report
    assert (report["rows"], report["ids"], report["steps"]) == ALL


def test_a_checkpoint_in_the_second_pass_holds_the_rows_up_to_there(runs: Runs) -> None:
    states = runs.states[AT_LAST]
    places = [state["parts"]["input"] for state in states]
    assert [place.epoch for place in places] == [1, 1]
    (rows,) = states[0]["objects"]["rows"].values()
    assert int(rows) == sum(ROWS) + sum(place.rows for place in places)


@pytest.mark.parametrize("checkpoint", [3, 4])
def test_what_is_kept_is_all_rows_before_each_barrier_and_no_other(
    runs: Runs, checkpoint: int
) -> None:
    rows = [BEFORE[worker][checkpoint] for worker in (0, 1)]
    require_kept(
        runs.states[checkpoint][0], rows, [ids_of(w, 0, n) for w, n in enumerate(rows)]
    )


def test_updates_that_a_loop_has_sent_and_not_waited_for_are_kept(runs: Runs) -> None:
    rows = [BEFORE[0][3] + 8, BEFORE[1][3] + 4]
    ids = [ids_of(worker, 0, n) for worker, n in enumerate(rows)]
    require_kept(runs.restored_states[5][0], rows, ids)


def require_kept(state: dict[str, Any], rows: list[int], ids: list[list[int]]) -> None:
    objects = state["objects"]
    (counted,), (added,) = objects["rows"].values(), objects["ids"].values()
    assert (int(counted), int(added)) == (sum(rows), sum(map(sum, ids)))
    (iteration,) = [v for name, v in objects["optimizer"].items() if "iteration" in name]
    assert int(iteration) == sum(rows) // BATCH


def test_what_is_on_the_servers_is_kept_once_and_the_rest_by_each_worker(runs: Runs) -> None:
    keeper, other = (state["objects"] for state in runs.states[4])
    assert len(keeper["model"]) == 4
    assert len(keeper["optimizer"]) == 2 + 2 * 4
    assert other["model"] == other["rows"] == other["ids"] == {}
    (rate,) = other["optimizer"].values()
    assert float(rate) == pytest.approx(0.02)


def test_restored_workers_go_on_with_another_number_of_servers(runs: Runs) -> None:
    begun = [result.report["begun"] for result in runs.restored]
    assert begun == [BEFORE[0][3] + BEFORE[1][3]] * 2
    report = runs.restored[0].report
    assert (report["rows"], report["ids"], report["steps"]) == ALL
    rates = [result.report["rate"] for result in runs.restored]
    assert rates == pytest.approx([0.01, 0.02])


@pytest.mark.parametrize("worker", [0, 1])
def test_before_any_step_other_servers_hold_bit_for_bit_what_two_workers_had_made(
    runs: Runs, worker: int
) -> None:
    held = runs.restored_held[worker]
    kept = kept_bits(runs.states[3][0], "model", "optimizer")
    if worker == 1:  # its own, which no server holds
        held, kept = without_rate(held), without_rate(kept)
    require_same(held, kept)


def without_rate(bits: dict[str, Bits]) -> dict[str, Bits]:
    return {
        owner: {name: each for name, each in of.items() if "learning_rate" not in name}
        for owner, of in bits.items()
    }


def test_another_number_of_workers_begins_bit_for_bit_with_what_was_kept(runs: Runs) -> None:
    require_same(runs.alone_held, kept_bits(runs.states[4][0], "model", "optimizer"))


def test_another_number_of_workers_goes_on_with_what_worker_0_kept(runs: Runs) -> None:
    (result,) = runs.alone
    assert result.report["begun"] == BEFORE[0][4] + BEFORE[1][4]
    report = result.report
    assert (report["rows"], report["ids"]) == (sum(ROWS), ALL_IDS)
    assert report["rate"] == pytest.approx(0.01)


def test_a_variable_on_the_servers_that_is_in_no_checkpoint_is_named(runs: Runs) -> None:
    assert [result.report["warned"] for result in runs.first] == [1, 0]
