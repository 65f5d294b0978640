"""A TensorFlow worker that is restored trains as if nothing had happened, bit for bit."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from headrace.config import TimeoutConfig
from headrace.errors import (
    ConfigError,
    ExchangeError,
    PlanError,
    ServerLostError,
    UsageError,
    WaitTimeoutError,
)
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.framework.process import StateRef
from headrace.role import HELD_OUT
from headrace.role.taking import take_state
from headrace.tensorflow import TFContext, TFEntry, TFSettings
from headrace.tensorflow.job import training_job
from headrace.tensorflow.stateful import _Served, as_stateful
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
    """Trains with dropout, running means and Adam.

    By a `fit` for each pass, by one "fit of all" passes, or by an own loop on `batches`.
    """

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
        model, optimizer = ctx.checkpointed(model=model, optimizer=optimizer)
        ctx.data_parallel(model)
        rows = ctx.dataset(2, features=["x"], label="y")
        if self.loop == "fit":
            for e in range(ctx.epoch, ctx.epochs):
                model.fit(rows, epochs=e + 1, initial_epoch=e, shuffle=False, verbose=0)
        elif self.loop == "fit of all":
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


def run_of_passes(directory: Path, loop: str) -> tuple[Trainer, dict[int, bytes]]:
    """Make two passes over 4 batches; return the states in the first and in later ones."""
    undisturbed = Trainer(loop=loop, epochs=2)
    items = [*batches(0, 3), Barrier(1), *batches(3, 4), End(), *map(Barrier, range(2, 6))]
    feed = SlowBarriers(items, input_schema=SCHEMA)
    run(directory, undisturbed, [], feed=feed)
    assert undisturbed.steps == 8
    return undisturbed, {each: state for each, state in feed.states if each is not None}


def restore_all(
    directory: Path, loop: str, states: dict[int, bytes]
) -> Iterator[tuple[int, Trainer]]:
    for number, state in states.items():
        restored = Trainer(loop=loop, seed=99, epochs=2)
        items = [*(batches(3, 4) if number == 1 else []), End()]
        run(directory, _raising(restored), items, **restored_from(directory, state))
        yield number, restored


@pytest.mark.parametrize("loop", ["fit", "batches"])
def test_a_training_of_two_passes_is_restored_from_every_place(
    tmp_path: Path, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.tensorflow.portions._PORTION_ROWS", 2)
    undisturbed, states = run_of_passes(tmp_path, loop)
    assert len(states) > 3
    for _, restored in restore_all(tmp_path, loop, states):
        assert restored.steps == 8
        for one, other in zip(undisturbed.weights, restored.weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_look_at_the_held_out_rows_does_not_say_that_the_portion_was_used(
    tmp_path: Path,
) -> None:
    schema = pa.schema([*SCHEMA, (HELD_OUT, pa.bool_())])
    seen: list[list[float]] = []

    def look(ctx: TFContext) -> None:
        ctx.use_settings(TFSettings(epochs=2, has_held_out=True))
        xs = ctx.state.setdefault("xs", [])
        rows = ctx.dataset(2)
        for epoch in range(ctx.epoch, ctx.epochs):
            for batch in rows:
                if epoch:
                    assert [each["x"].tolist() for each in ctx.held_out(2)] == [[101.0]]
                xs.extend(batch["x"].numpy().tolist())
        seen.append(xs)

    columns = [[1.0, 2.0, 3.0, 4.0, 5.0, 101.0], [0.0] * 6, [False] * 5 + [True]]
    rows = Batch(pa.record_batch(columns, schema=schema))
    items: list[Item] = [rows, End(), *map(Barrier, range(9))]
    feed = run(tmp_path, look, [], feed=SlowBarriers(items, input_schema=schema))
    assert seen[0] == [1, 2, 3, 4, 5] * 2
    states = [state for number, state in feed.states if number is not None]
    assert states
    for state in states:
        rest = MemoryFeed([End()], input_schema=schema)
        run(tmp_path, look, [], feed=rest, **restored_from(tmp_path, state))
        assert seen[-1] == seen[0]


@pytest.mark.parametrize("portion_rows", [2, 4096])
def test_a_fit_that_leaves_rows_of_a_pass_out_is_an_error(
    tmp_path: Path, portion_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keras makes its later epochs as long as its first, here the rest of a pass."""
    monkeypatch.setattr("headrace.tensorflow.portions._PORTION_ROWS", portion_rows)
    _, states = run_of_passes(tmp_path, "fit")
    told = r"rows of pass 2 left.*for e in range\(ctx\.epoch, ctx\.epochs\): model\.fit"
    with pytest.raises(UsageError, match=told):
        list(restore_all(tmp_path, "fit of all", {1: states[1]}))


def test_a_fit_that_uses_all_rows_of_its_passes_is_none(tmp_path: Path) -> None:
    undisturbed, _ = run_of_passes(tmp_path, "fit of all")
    assert undisturbed.steps == 8


@pytest.mark.parametrize(
    ("hold_back", "common"),
    [
        (lambda rows: rows.prefetch(3), False),
        (lambda rows: rows.unbatch().shuffle(100).batch(2), True),
    ],
)
def test_rows_that_a_dataset_holds_back_are_refused(
    tmp_path: Path,
    hold_back: Callable[[tf.data.Dataset], tf.data.Dataset],
    common: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.tensorflow.portions._PORTION_ROWS", 2)

    def train(ctx: TFContext) -> None:
        model = build_model()
        model.compile(keras.optimizers.SGD(0.1, gradient_accumulation_steps=2), "mse")
        ctx.checkpointed(model=model)
        if common:
            ctx.data_parallel(model)
        for x, y in hold_back(ctx.dataset(2, features=["x"], label="y")):
            deadline = monotonic() + 5
            while ctx._error is None and monotonic() < deadline:
                Event().wait(0.01)  # the step takes longer than asking for the next batch
            model.train_on_batch(x, y)

    with pytest.raises(UsageError, match=r"stepped on 0 of 1 batches.*shuffle, prefetch"):
        run(tmp_path, _raising(train), [*batches(0, 1), Barrier(1), *batches(1, 9), End()])


@pytest.mark.parametrize(
    ("how", "portion_rows"),
    [("evaluate", 2), ("evaluate", 4096), ("predict", 4096), ("adapt", 4096), ("loop", 2)],
)
def test_rows_that_are_only_looked_at_need_no_step(
    tmp_path: Path, how: str, portion_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.tensorflow.portions._PORTION_ROWS", portion_rows)
    seen: list[Any] = []

    def look(ctx: TFContext) -> None:
        model = build_model()
        model.compile("sgd", "mse")
        layer = keras.layers.Normalization(axis=-1)
        layer.build((None, 1))
        ctx.checkpointed(model=model, layer=layer)
        if how == "adapt":
            layer.adapt(ctx.dataset(2, features=["x"]))
            seen.append(float(layer.mean.numpy().item()))
            return
        rows = ctx.dataset(2, features=["x"], label="y")
        if how == "evaluate":
            seen.append(model.evaluate(rows, verbose=0))
        elif how == "predict":
            seen.append(len(model.predict(rows, verbose=0)))
        else:
            seen.append(sum(len(y) for _, y in rows))

    cut = [*batches(0, 5), Barrier(1), *batches(5, 9), Barrier(2), End()]
    feed = run(tmp_path, _raising(look), cut)
    assert [number for number, _ in feed.states] == [1, 2, None, None]
    run(tmp_path, look, [*batches(0, 9), End()])
    assert seen[0] == pytest.approx(seen[1])


def test_half_a_step_is_never_captured(tmp_path: Path) -> None:
    given: list[Any] = []

    def train(ctx: TFContext) -> None:
        model = build_model()
        ctx.checkpointed(model=model)
        for batch in ctx.dataset(2):
            given.append(batch)
            model.compile("sgd", "mse", steps_per_execution=4)  # not seen before the first row

    with pytest.raises(UsageError, match=r"steps_per_execution=1"):
        run(tmp_path, _raising(train), [*batches(0, 5), Barrier(1), *batches(5, 9), End()])
    assert len(given) == 5


@pytest.mark.parametrize(
    ("workers", "planned", "is_refused"), [(1, 2, True), (2, (1, 2), True), (2, 2, False)]
)
def test_several_steps_at_once_are_refused_before_the_first_row(
    tmp_path: Path, workers: int, planned: int | tuple[int, int], is_refused: bool
) -> None:
    given: list[Any] = []

    def train(ctx: TFContext) -> None:
        job = training_job(train, is_stream=True, workers=planned)
        entry = job.roles["worker"].entry
        assert isinstance(entry, TFEntry)
        ctx.use_settings(entry.settings)
        model = build_model()
        model.compile("sgd", "mse", steps_per_execution=4)
        ctx.checkpointed(model=model)
        given.append(next(iter(ctx.dataset(2))))

    facts: dict[str, Any] = {
        "parallelism": workers,
        "cluster": {"worker": ("localhost",) * workers},
        "ports": {"worker": tuple(range(1, workers + 1))},
    }
    items = [*batches(0, 8), End()]
    if is_refused:
        with pytest.raises(UsageError, match=r"may leave one .*steps_per_execution=1"):
            run(tmp_path, _raising(train), items, **facts)
    else:
        run(tmp_path, train, items, **facts)
    assert len(given) == (0 if is_refused else 1)


def _raising(trainer: Callable[[TFContext], object]) -> Callable[[TFContext], object]:
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


def test_beside_a_chief_variables_on_servers_are_not_kept(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "cluster": {"worker": ("h",), "ps": ("h",), "chief": ("h",)},
        "ports": {"worker": (1,), "ps": (2,), "chief": (3,)},
    }
    with pytest.raises(PlanError, match=r"has a chief beside its parameter servers"):
        run(tmp_path, lambda ctx: ctx.checkpointed(model=build_model()), [End()], **facts)


def test_workers_that_do_not_meet_beside_servers_are_told_both_limits(tmp_path: Path) -> None:
    facts: dict[str, Any] = {
        "parallelism": 2,
        "cluster": {"worker": ("127.0.0.1",) * 2, "ps": ("127.0.0.1",)},
        "ports": {"worker": (1, 2), "ps": (3,)},
        "timeouts": TimeoutConfig(gather_timeout_s=0.2, process_start_timeout_s=0.1),
    }
    told = (
        r"Waited 0\.4 s for the 2 processes .* 1 came \(limit set by "
        r"`timeouts\.gather_timeout_s \+ 2 \* timeouts\.process_start_timeout_s`\)"
    )
    with pytest.raises(WaitTimeoutError, match=told):
        run(tmp_path, lambda ctx: ctx.checkpointed(model=build_model()), [End()], **facts)


def test_files_that_would_be_written_on_the_hosts_of_servers_are_refused(
    tmp_path: Path,
) -> None:
    checkpoint = tf.train.Checkpoint(v=tf.Variable(1.0))
    with pytest.raises(ConfigError, match=r"files=.*hosts of the servers"):
        as_stateful({"files": checkpoint}, tmp_path, has_servers=True)


def test_a_lack_of_memory_is_no_mistake_of_the_program() -> None:
    model = build_model()
    (stateful,) = as_stateful({"model": model}, Path()).values()
    state = stateful.state_dict()
    full = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")
    stateful.of()[0].assign = _raiser(full)
    with pytest.raises(tf.errors.ResourceExhaustedError) as caught:
        take_state("model", stateful, state)
    assert caught.value is full


def _raiser(error: Exception) -> Callable[..., None]:
    def assign(*_: object) -> None:
        raise error

    return assign


@pytest.mark.parametrize(
    "kind",
    [
        tf.errors.UnavailableError,
        tf.errors.AbortedError,
        tf.errors.CancelledError,
        tf.errors.DeadlineExceededError,
    ],
)
def test_a_server_that_is_lost_while_its_variables_are_restored_is_no_mistake_either(
    kind: type[tf.errors.OpError],
) -> None:
    """TensorFlow tells of a real loss once, to whoever asks next, so that none is made here."""
    variable: Any = tf.Variable(1.0)
    stateful = _Served(lambda: [variable], keeps_served=True)
    state = stateful.state_dict()
    lost = kind(None, None, "recvmsg:Connection reset by peer")
    variable.assign = _raiser(lost)
    with pytest.raises(ServerLostError, match=r"ended.*Connection reset by peer") as caught:
        take_state("model", stateful, state)
    assert caught.value.__cause__ is lost


_NO_ROOM = r"(?s)too large.*`io\.tmp\.dirs`"


def test_files_of_a_checkpoint_that_cannot_be_written_are_named_with_the_way_out(
    tmp_path: Path,
) -> None:
    checkpoint = tf.train.Checkpoint(v=tf.Variable(np.zeros(100_000)))
    (files,) = as_stateful({"files": checkpoint}, tmp_path).values()
    state = files.state_dict()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as a full disk
    try:
        with pytest.raises(ExchangeError, match=_NO_ROOM) as writing:
            files.state_dict()
        assert list(tmp_path.iterdir()) == []
        with pytest.raises(ExchangeError, match=_NO_ROOM) as restoring:
            files.load_state_dict(state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    for caught in (writing, restoring):
        assert str(tmp_path) in str(caught.value)
    checkpoint.v.assign(np.ones(100_000))
    files.load_state_dict(state)
    assert not checkpoint.v.numpy().any()
