"""What `export_to` writes of a Keras model is that of its checkpoint, and can be served."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest

from headrace.config import TimeoutConfig
from headrace.errors import ConfigError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.role.state_format import decode_state
from headrace.tensorflow import KerasModel, SavedModel, TFContext, TFEntry, TFSettings
from tests.unit.role.doubles import FakeLink, spec_in
from tests.waiting import until

# Keras 3.15 says so at the end of each pass over a dataset whose length is unknown.
pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SCHEMA = pa.schema([("x", pa.float32()), ("y", pa.float32())])
FACTS: dict[str, Any] = {
    "index": 0,
    "parallelism": 1,
    "cluster": {"worker": ("localhost",)},
    "timeouts": TimeoutConfig(stop_timeout_s=120),  # half is for the version that is due last
}
X = np.array([[1.0], [2.0], [-3.0]], np.float32)


def build() -> keras.Model:
    keras.utils.set_random_seed(3)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((1,)),
            layers.Dense(4, activation="tanh"),
            layers.Dropout(0.5),
            layers.BatchNormalization(),
            layers.Dense(1),
        ]
    )


def batch(*xs: float) -> Batch:
    return Batch(pa.record_batch([list(xs), [1.0] * len(xs)], schema=SCHEMA))


def trains(**choice: Any) -> Any:
    def entry(ctx: TFContext) -> None:
        model = build()
        model.compile(keras.optimizers.Adam(0.1), "mse")
        ctx.checkpointed(model=model, optimizer=model.optimizer)
        if choice:
            ctx.exported(model, **choice)
        model.fit(
            ctx.dataset(2, features=["x"], label="y"),
            epochs=ctx.epochs,
            verbose=0,
            shuffle=False,
        )

    return entry


class Job:
    """Two checkpoints, the first of which completes when the second is under way."""

    def __init__(self, folder: Path, entry: Any, suffix: str) -> None:
        self.served = folder / "served"
        self.latest = self.served / f"latest{suffix}"
        self.feed = MemoryFeed(self._items(), input_schema=SCHEMA)
        settings = TFSettings(export_to=self.served, is_stream=True)
        facts = spec_in(folder, host="localhost", **FACTS)
        TFEntry(entry, settings)(facts, FakeLink(), feed=self.feed)

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

    def expected(self, checkpoint_id: int) -> Any:
        content = dict(self.feed.states)[checkpoint_id]
        state = decode_state(memoryview(bytearray(content)))["objects"]["model"]
        model = build()
        model.set_weights([value for name, value in state.items() if "seed" not in name])
        return model(X, training=False)


@pytest.mark.parametrize(
    ("choice", "suffix", "handle"),
    [
        pytest.param({}, ".keras", KerasModel, id="keras"),
        pytest.param({"form": "saved_model"}, "", SavedModel, id="SavedModel"),
    ],
)
def test_each_version_is_the_model_of_its_checkpoint(
    tmp_path: Path, choice: Any, suffix: str, handle: Any
) -> None:
    job = Job(tmp_path, trains(**choice), suffix)
    names = sorted(each.name for each in job.served.iterdir())
    stems = ["checkpoint-4", "checkpoint-5", "initial", "latest"]
    assert names == [f"{stem}{suffix}" for stem in stems]
    for checkpoint_id in (4, 5):
        loaded = handle(job.served / f"checkpoint-{checkpoint_id}{suffix}").load(None)
        found = loaded([loaded.tensor(X)], {})
        (scores,) = found.values() if isinstance(found, dict) else (found,)
        np.testing.assert_allclose(scores, job.expected(checkpoint_id), rtol=1e-6)
    assert job.latest.resolve().name == f"checkpoint-5{suffix}"
    assert not np.array_equal(job.expected(4), job.expected(5))


@pytest.mark.parametrize("form", ["keras", "saved_model"])
def test_an_export_leaves_the_random_numbers_of_the_training_alone(
    tmp_path: Path, form: Any
) -> None:
    draws: list[float] = []

    def entry(ctx: TFContext) -> None:
        model = build()  # its initializers have drawn seeds; a copy draws others
        random.seed(5)
        ctx.checkpointed(model=model)
        ctx.exported(model, form=form)
        draws.extend(random.random() for _ in ctx.batches(rows=2))

    Job(tmp_path, entry, "" if form == "saved_model" else ".keras")
    random.seed(5)
    assert draws[0] == random.random()


def test_what_cannot_be_exported_is_told_before_the_first_row(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be 'keras' or 'saved_model'"):
        Job(tmp_path, trains(form="onnx"), "")

    class Own(keras.Model):  # type: ignore[misc] # Keras has no types
        def __init__(self, size: int) -> None:
            super().__init__()
            self.layer = keras.layers.Dense(size)

        def call(self, x: Any) -> Any:
            return self.layer(x)

    def entry(ctx: TFContext, *, is_chosen: bool = False) -> None:
        model = Own(2)
        model(X)
        _, other = ctx.checkpointed(model=model, other=build())
        if is_chosen:
            ctx.exported(other)
        for _ in ctx.batches(rows=2):
            pass

    with pytest.raises(ConfigError, match=r"the Own cannot be copied.*get_config"):
        Job(tmp_path, entry, ".keras")
    job = Job(tmp_path, functools.partial(entry, is_chosen=True), ".keras")
    assert job.latest.exists(), "another one was chosen, which can be"
