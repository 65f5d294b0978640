"""Many small trainings in one set of processes, and the same steps made by Keras alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import msgspec
import numpy as np
import pyarrow as pa
import tensorflow as tf

from headrace.config import TimeoutConfig
from headrace.framework.local import run_local
from headrace.framework.local_role import LocalRole
from headrace.tensorflow import TFEntry, TFSettings
from headrace.testing import Fault, RunResult
from headrace.testing.split import Split, split_table
from headrace.testing.worker import FedEntry, read_result
from tests.unit.tensorflow.recipes import FEATURES, RECIPES, WORDS, Recipe, gradients_of

SCHEMA = pa.schema([("step", pa.int64()), ("id", pa.int64())])
SAVED = "model.weights.h5"
_LIMITS = TimeoutConfig(collective_timeout_s=60.0, gather_timeout_s=100.0)


def build_table(rows: int) -> pa.Table:
    """Rows with an id, a word, features as an array, and a target."""
    random = np.random.default_rng(5)
    x = random.normal(size=(rows, FEATURES))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.3
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * FEATURES), pa.array(x.reshape(-1))
    )
    word = random.integers(0, WORDS, rows)
    return pa.table({"id": np.arange(rows), "word": word, "x": lists, "y": y})


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One training: how the rows are split, read and trained on.

    `loader` is "fit-1" or "fit-10" (steps for each execution), "dataset" or "batches" (loops).
    With `looks_first` a batch of the dataset is looked at before `ctx.data_parallel`, as to
    build a model; `arrive` rows come at once.
    """

    recipe: str = "momentum"
    split: Split | None = None
    faults: Sequence[Fault] = ()
    loader: str = "fit-1"
    total_rows: int = 101  # divides by neither workers nor batches
    rows: int = 8
    arrive: int | None = None  # rows; None: those of a batch
    looks_first: bool = False
    epochs: int = 1
    leave_after: tuple[int | None, ...] | None = None  # steps, by worker; loops only
    rate_of_worker_1: float | None = None  # set by a callback; fit only
    fed: type[FedEntry] = FedEntry
    on_start: Callable[[Any], object] = lambda _: None

    def table(self) -> pa.Table:
        return build_table(self.total_rows)

    def __call__(self, ctx: Any) -> None:
        self.on_start(ctx)
        recipe = RECIPES[self.recipe]
        model, optimizer = recipe.model(), recipe.optimizer()
        given: list[Any] = []
        steps: list[int] = []
        if self.loader.startswith("fit"):
            per_execution = int(self.loader.partition("-")[2])
            model.compile(optimizer, recipe.loss(), steps_per_execution=per_execution)
            if self.looks_first:
                next(self._batches(ctx))
            ctx.data_parallel(model, loss_reduction=recipe.reduction)
            _note_steps(ctx, steps)
            callbacks = []
            if self.rate_of_worker_1 is not None and ctx.rank == 1:
                callbacks.append(_Rate(self.rate_of_worker_1))
            data = self._noted(ctx, given)
            model.fit(data, epochs=ctx.epochs, callbacks=callbacks, shuffle=False, verbose=0)
        else:
            batches = self._batches(ctx)
            if self.looks_first:
                next(batches)
            ctx.data_parallel(model, optimizer, loss_reduction=recipe.reduction)
            _note_steps(ctx, steps)
            self._loop(ctx, recipe, model, optimizer, batches, given)
        if ctx.world_size == 1:
            steps = [*range(1, len(given) + 1)]
        elif self.leave_after is None:
            assert len(steps) == len(given), (steps, len(given))
        for step, ids in zip(steps, given, strict=True):
            ctx.emit({"step": [step] * len(ids), "id": ids})
        ctx.save(model, SAVED)
        rate = float(optimizer.learning_rate)
        sums = {
            f"{n}.{v.name}": float(np.sum(v.numpy())) for n, v in enumerate(model.variables)
        }
        ctx.report(steps=ctx.steps, rate=rate, **sums)

    def _noted(self, ctx: Any, given: list[Any]) -> Any:
        """The dataset; the ids of each batch are noted as it is given out."""

        def note(ids: Any) -> Any:
            given.append(ids.copy())
            return np.int64(0)

        def forget_ids(features: Any, label: Any) -> Any:
            done = tf.numpy_function(note, [features.pop("id")], tf.int64)
            with tf.control_dependencies([done]):
                return {name: tf.identity(v) for name, v in features.items()}, label[:, None]

        data = ctx.dataset(self.rows, label="y", shapes={"x": (FEATURES,)})
        return data.map(tf.autograph.experimental.do_not_convert(forget_ids))

    def train_step(self, recipe: Recipe, model: Any, optimizer: Any) -> Any:
        """Return the function of features and label that makes one step."""
        signature = (
            {
                "x": tf.TensorSpec((None, FEATURES), tf.float64),
                "word": tf.TensorSpec((None,), tf.int64),
            },
            tf.TensorSpec((None,), tf.float64),
        )

        def train_step(features: Any, label: Any) -> None:
            with tf.GradientTape() as tape:
                loss = recipe.loss()(label[:, None], model(features, training=True))
            found = tape.gradient(loss, model.trainable_variables)
            optimizer.apply(found, model.trainable_variables)

        return tf.function(train_step, input_signature=signature)

    def _loop(
        self,
        ctx: Any,
        recipe: Recipe,
        model: Any,
        optimizer: Any,
        batches: Iterator[Any],
        given: list[Any],
    ) -> None:
        train_step = self.train_step(recipe, model, optimizer)
        for number, (features, label) in enumerate(batches, 1):
            given.append(np.array(features.pop("id")))
            train_step(features, label)
            if self.leave_after is not None and number == self.leave_after[ctx.rank]:
                return

    def _batches(self, ctx: Any) -> Iterator[Any]:
        if self.loader != "batches":
            for _ in range(ctx.epochs):
                yield from ctx.dataset(self.rows, label="y", shapes={"x": (FEATURES,)})
            return
        for batch in ctx.batches(self.rows):
            features = {name: tf.constant(batch[name]) for name in ("id", "x", "word")}
            yield features, tf.constant(batch["y"])


class _Rate(keras.callbacks.Callback):  # type: ignore[misc] # has no types
    def __init__(self, rate: float) -> None:
        super().__init__()
        self._rate = rate

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 2:
            self.model.optimizer.learning_rate = self._rate


def _note_steps(ctx: Any, steps: list[int]) -> None:
    """Note the number of each common step in which this worker is active."""
    lockstep = ctx._steps
    add = getattr(lockstep, "_add_gradients", None)
    if add is None:  # one worker makes no common steps
        return

    def add_and_note(*arguments: Any) -> Any:
        done = add(*arguments)
        steps.append(lockstep.steps)
        return done

    lockstep._add_gradients = add_and_note


def run_all(
    scenarios: Mapping[str, Scenario], *, workers: int, directory: Path
) -> Mapping[str, RunResult]:
    """Run each scenario with that many workers, all in the same processes."""
    for name in scenarios:
        (directory / name).mkdir()
    series = _Series(dict(scenarios), workers, directory)
    role = LocalRole(entry=series, parallelism=workers, has_port=True)
    run_local({"worker": role}, timeouts=_LIMITS, timeout_s=560.0)
    return {
        name: RunResult(
            workers=tuple(
                read_result(directory / name, f"worker-{index}") for index in range(workers)
            ),
            saved=(directory / name / SAVED,),
        )
        for name in scenarios
    }


@dataclass
class _Series:
    """The entry function of each process; a scenario is an attempt with a group of its own."""

    scenarios: dict[str, Scenario]
    workers: int
    directory: Path

    def __call__(self, spec: Any, link: Any) -> None:
        keras.config.set_floatx("float64")
        for number, (name, scenario) in enumerate(self.scenarios.items(), 1):
            work_dir = Path(spec.work_dir) / str(number)
            work_dir.mkdir()
            result_dir = self.directory / name
            fed = scenario.fed(
                entry=TFEntry(
                    scenario, TFSettings(epochs=scenario.epochs, output_dir=result_dir)
                ),
                tables=split_table(
                    scenario.table(),
                    self.workers,
                    split=scenario.split,
                    batch_rows=scenario.arrive or scenario.rows,
                ),
                output_schema=SCHEMA,
                batch_rows=scenario.arrive or scenario.rows,
                faults=tuple(scenario.faults),
                result_dir=result_dir,
            )
            try:
                fed(msgspec.structs.replace(spec, attempt=number, work_dir=str(work_dir)), link)
            except Exception as error:
                msg = f"scenario {name!r} of {self.workers} workers failed"
                raise RuntimeError(msg) from error


@dataclass
class Steps:
    """Which rows each worker put into each common step."""

    parts: dict[int, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    @classmethod
    def of(cls, result: RunResult) -> Steps:
        steps = cls()
        for worker, each in enumerate(result.workers):
            assert each.emitted is not None
            columns = each.emitted.to_pydict()
            for step, row in zip(columns["step"], columns["id"], strict=True):
                steps.parts[step][worker].append(row)
        return steps


def replay(recipe: Recipe, table: pa.Table, steps: Steps) -> Any:
    """Train one process on the union of the rows of each step; return the model."""
    model, optimizer = recipe.model(), recipe.optimizer()
    for step in sorted(steps.parts):
        ids = [row for rows in steps.parts[step].values() for row in rows]
        found = gradients_of(recipe, model, *_rows(table, ids), share=1.0)
        optimizer.apply(found, model.trainable_variables)
    return model


def replay_parts(recipe: Recipe, table: pa.Table, steps: Steps) -> Any:
    """Train one process on each worker's part of a step, and weight them by their rows.

    For batch normalization: a worker normalizes over its own rows, as elsewhere; the running
    means and variances are averaged over the rows.
    """
    model, optimizer = recipe.model(), recipe.optimizer()
    state = [v for v in model.non_trainable_variables if "moving" in v.path]
    for step in sorted(steps.parts):
        parts = list(steps.parts[step].values())
        total = sum(map(len, parts))
        before = [v.numpy() for v in state]
        means = [np.zeros_like(v) for v in before]
        summed: list[Any] = [0.0] * len(model.trainable_variables)
        for ids in parts:
            for v, value in zip(state, before, strict=True):
                v.assign(value)
            share = len(ids) / total
            found = gradients_of(recipe, model, *_rows(table, ids), share=share)
            summed = [a + b for a, b in zip(summed, found, strict=True)]
            means = [m + v.numpy() * share for m, v in zip(means, state, strict=True)]
        for v, value in zip(state, means, strict=True):
            v.assign(value)
        optimizer.apply(summed, model.trainable_variables)
    return model


def _rows(table: pa.Table, ids: Sequence[int]) -> tuple[Any, Any]:
    x = np.stack(table["x"].to_pylist()) if table.num_rows else np.zeros((0, FEATURES))
    features = {"x": x[ids], "word": table["word"].to_numpy()[ids]}
    return features, table["y"].to_numpy()[ids]
