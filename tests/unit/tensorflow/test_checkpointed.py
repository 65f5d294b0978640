"""A TensorFlow worker that is restored trains as if nothing had happened, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from headrace.errors import ConfigError, PlanError, UsageError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.framework.process import StateRef
from headrace.tensorflow import TFContext, TFSettings
from headrace.tensorflow.stateful import as_stateful
from tests.unit.role.doubles import FakeLink, spec_in
from tests.unit.role.test_restored_passes import SlowBarriers

# Keras 3.15 says so at the end of each pass over a dataset whose length is unknown.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]

SCHEMA = pa.schema([("x", pa.float32()), ("y", pa.float32())])


def batches(first: int, last: int) -> list[Item]:
    return [
        Batch(pa.record_batch([[float(i), i / 2], [i / 3, 1.0]], schema=SCHEMA))
        for i in range(first, last)
    ]


def build_model(seed: int = 3) -> keras.Model:
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((1,)),
            keras.layers.Dense(4, activation="tanh"),
            keras.layers.Dropout(0.5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )


class Trainer:
    """Trains with dropout, running means and Adam; `fit`, or an own loop on `batches`."""

    def __init__(
        self, *, loop: str, per_execution: int = 1, seed: int = 3, epochs: int = 1
    ) -> None:
        self.loop = loop
        self.epochs = epochs
        self.per_execution = per_execution
        self.seed = seed
        self.weights: list[Any] = []
        self.steps = 0

    def __call__(self, ctx: TFContext) -> None:
        ctx.use_settings(TFSettings(epochs=self.epochs))
        model = build_model(self.seed)
        optimizer = keras.optimizers.Adam(0.05)
        model.compile(optimizer, "mse", steps_per_execution=self.per_execution)
        ctx.checkpointed(model=model, optimizer=optimizer)
        ctx.data_parallel(model)
        if self.loop == "fit":
            rows = ctx.dataset(2, features=["x"], label="y")
            passes = {"epochs": ctx.epochs, "initial_epoch": ctx.epoch}
            model.fit(rows, **passes, shuffle=False, verbose=0)
        else:
            for batch in ctx.batches(rows=2):
                model.train_on_batch(batch["x"].reshape(-1, 1), batch["y"])
        self.steps = ctx.steps
        self.weights = [np.array(each.numpy()) for each in model.variables]


def run(
    directory: Path,
    train: Callable[[TFContext], object],
    items: list[Item],
    *,
    feed: MemoryFeed | None = None,
    **spec: Any,
) -> MemoryFeed:
    feed = feed or MemoryFeed(items, input_schema=SCHEMA)
    facts: dict[str, Any] = {
        "index": 0,
        "parallelism": 1,
        "cluster": {"worker": ("localhost",)},
        "ports": {"worker": (1,)},
        **spec,
    }
    ctx = TFContext(spec=spec_in(directory, **facts), link=FakeLink(), feed=feed)
    is_success = False
    try:
        train(ctx)
        is_success = True
    finally:
        ctx.close(is_success=is_success)
    return feed


def restored_from(directory: Path, state: bytes) -> dict[str, Any]:
    path = directory / "state"
    path.write_bytes(state)
    return {"is_restored": True, "states": (StateRef(path=str(path), index=0, parallelism=1),)}


@pytest.mark.parametrize("loop", ["fit", "batches"])
def test_a_restored_training_ends_with_the_same_bits(tmp_path: Path, loop: str) -> None:
    undisturbed = Trainer(loop=loop)
    feed = run(tmp_path, undisturbed, [*batches(0, 5), Barrier(1), *batches(5, 9), End()])
    assert undisturbed.steps == 9
    checkpoint_id, state = feed.states[0]
    assert checkpoint_id == 1
    restored = Trainer(loop=loop, seed=99)
    run(tmp_path, restored, [*batches(5, 9), End()], **restored_from(tmp_path, state))
    assert restored.steps == 9
    for one, other in zip(undisturbed.weights, restored.weights, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("loop", ["fit", "batches"])
def test_a_training_that_is_restored_in_its_second_pass_goes_on_there(
    tmp_path: Path, loop: str
) -> None:
    undisturbed = Trainer(loop=loop, epochs=3)
    feed = SlowBarriers([*batches(0, 5), End(), *map(Barrier, range(9))], input_schema=SCHEMA)
    run(tmp_path, undisturbed, [], feed=feed)
    assert undisturbed.steps == 15
    states = [state for number, state in feed.states if number is not None]
    assert states
    for state in (states[0], states[-1]):
        restored = Trainer(loop=loop, seed=99, epochs=3)
        run(tmp_path, restored, [End()], **restored_from(tmp_path, state))
        assert restored.steps == 15
        for one, other in zip(undisturbed.weights, restored.weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_half_a_step_is_never_captured(tmp_path: Path) -> None:
    trainer = Trainer(loop="fit", per_execution=4)
    with pytest.raises(UsageError, match=r"steps_per_execution=1"):
        run(tmp_path, _raising(trainer), [*batches(0, 5), Barrier(1), *batches(5, 9), End()])


def _raising(trainer: Trainer) -> Callable[[TFContext], object]:
    """Raise what stands behind an error of TensorFlow's, as `TFEntry` does."""

    def train(ctx: TFContext) -> None:
        try:
            trainer(ctx)
        except tf.errors.OpError as error:
            raise ctx.cause_of(error) from error

    return train


def test_all_kinds_of_objects_take_their_state_back(tmp_path: Path) -> None:
    def build(value: float) -> dict[str, Any]:
        model = build_model()
        variable = tf.Variable([value, value])
        module = tf.Module()
        module.inner = tf.Variable(value)
        generator = tf.random.Generator.from_seed(int(value))
        in_files = tf.train.Checkpoint(v=tf.Variable(value), generator=generator)
        return {
            "model": model,
            "optimizer": keras.optimizers.Adam(value),
            "variable": variable,
            "module": module,
            "files": in_files,
        }

    one, other = build(1.0), build(2.0)
    one["model"].layers[0].kernel.assign(tf.ones((1, 4)))
    written = as_stateful(one, tmp_path)
    states = {name: each.state_dict() for name, each in written.items()}
    assert list(states["variable"]) == ["0 Variable"]
    one["files"].generator.normal([3])  # behind the capture
    taken = as_stateful(other, tmp_path)
    for name, each in taken.items():
        each.load_state_dict(states[name])
    assert float(other["optimizer"].learning_rate) == 1.0
    assert other["variable"].numpy().tolist() == [1, 1]
    assert other["module"].inner.numpy() == 1
    assert other["files"].v.numpy() == 1
    assert other["model"].layers[0].kernel.numpy().tolist() == [[1, 1, 1, 1]]
    expected = tf.random.Generator.from_seed(1).normal([3])
    np.testing.assert_array_equal(other["files"].generator.normal([3]), expected)


def test_other_variables_are_not_taken_and_nothing_is_set(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(2)])
    larger = keras.Sequential([keras.Input((1,)), keras.layers.Dense(3)])
    state = as_stateful({"model": larger}, tmp_path)["model"].state_dict()
    before = [each.numpy() for each in model.variables]
    with pytest.raises(ValueError, match=r"variables are others"):
        as_stateful({"model": model}, tmp_path)["model"].load_state_dict(state)
    for one, now in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(one, now.numpy())


@pytest.mark.parametrize(
    ("objects", "told"),
    [
        ({"model": lambda: keras.Sequential([keras.layers.Dense(1)])}, r"model is not built"),
        ({"optimizer": keras.optimizers.SGD}, r"optimizer is not built"),
    ],
)
def test_what_has_no_variables_yet_is_refused(
    tmp_path: Path, objects: dict[str, Callable[[], Any]], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        as_stateful({name: make() for name, make in objects.items()}, tmp_path)


def test_with_parameter_servers_it_is_refused(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "cluster": {"worker": ("h",), "ps": ("h",)},
        "ports": {"worker": (1,), "ps": (2,)},
    }
    with pytest.raises(PlanError, match=r"parameter servers"):
        run(tmp_path, lambda ctx: ctx.checkpointed(model=build_model()), [End()], **facts)
