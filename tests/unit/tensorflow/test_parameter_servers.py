"""Two workers train on two parameter servers, in real processes: one run, many looks at it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from headrace import testing
from headrace._environ import copy_environment
from headrace.errors import ConfigError, PlanError
from headrace.role.saved import latest_saved
from headrace.tensorflow.ps_server import server_role
from headrace.tensorflow.ps_variable import ps_device
from tests.ports import free_ports

pytestmark = [
    pytest.mark.timeout(240),  # the first test waits for the run
    # Keras 3.15 copies variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

PER_EXECUTION = 10
WORDS, WIDTH = 100_000, 16
ROWS, BATCH, EPOCHS = 4_000, 50, 5
PROBE = np.arange(0, WORDS, 9_999)


def build_table() -> pa.Table:
    random = np.random.default_rng(7)
    word = random.integers(0, 50, ROWS)
    return pa.table({"word": word, "y": (word % 2).astype(np.float32)})


def build_model() -> Any:
    word = keras.Input((), name="word", dtype="int64")
    told = keras.layers.Embedding(WORDS, WIDTH)(word)
    hidden = keras.layers.Dense(32, "relu")(keras.layers.Dropout(0.1, seed=3)(told))
    return keras.Model(word, keras.layers.Dense(1, "sigmoid")(hidden))


class Noting(keras.optimizers.Adam):  # type: ignore[misc] # has no types
    """Adam that notes what kind of gradient a variable of each shape gets on its server."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds: dict[str, str] = {}

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> Any:
        self.kinds[str(variable.shape)] = type(gradient).__name__
        return super().update_step(gradient, variable, learning_rate)


def train(ctx: Any) -> None:
    """Fit, loop, save; what was seen goes into a file of each worker."""
    seen: dict[str, Any] = {}
    _fit(ctx, seen)
    _loop(ctx, seen)
    _train_a_second_model(ctx, seen)
    _sum_gradients(ctx, seen)
    _differ(ctx, seen)
    seen["libraries"] = sorted({"torch", "pyflink", "py4j"} & set(sys.modules))
    ctx.output_path(f"seen-{ctx.rank}.json").write_text(json.dumps(seen))


def _fit(ctx: Any, seen: dict[str, Any]) -> None:
    early = tf.Variable(1.0)  # what was made before the servers are known stays usable
    with ctx.parameter_servers():
        model = build_model()
        data = ctx.dataset(BATCH, label="y", columns=["word", "y"])  # counts in this process
    optimizer = Noting()
    model.compile(optimizer, "binary_crossentropy", steps_per_execution=PER_EXECUTION)
    pairs = data.map(lambda features, label: (features["word"], label[:, None]))
    history = model.fit(pairs, epochs=ctx.epochs, verbose=0)
    seen["losses"] = history.history["loss"]
    ctx.save(model, "last.weights.h5")
    seen["iterations_of_last"] = int(model.optimizer.iterations.numpy())
    seen["gradients"] = optimizer.kinds
    _meet(ctx, "fitted")
    seen["early"] = float(tf.function(lambda: early.assign_add(1.0))())
    seen["iterations"] = int(optimizer.iterations.numpy())
    seen["sums"] = [float(v.numpy().sum()) for v in model.trainable_variables]
    seen["slots"] = sum(float(np.abs(v.numpy()).sum()) for v in optimizer.variables[2:])
    seen["devices"] = {v.path: _device(v) for v in model.variables}
    seen["beside"] = [
        [_device(reference), _device(slot)]
        for kind in (optimizer._momentums, optimizer._velocities)
        for reference, slot in zip(model.trainable_variables, kind, strict=True)
    ]
    seen["of_this_process"] = {
        "learning_rate": _device(optimizer._learning_rate),
        **{f"metric-{n}": _device(v) for n, v in enumerate(model.metrics_variables)},
    }
    seen["predicted"] = model.predict(PROBE, verbose=0).reshape(-1).tolist()
    for name in ("model.keras", "model.weights.h5", "exported"):
        ctx.save(model, name)
    if ctx.rank == 0:
        with ctx.checkpoint_path(1) as path:
            tf.train.Checkpoint(model=model).write(str(path / "model"))
        model.set_weights([np.zeros(v.shape) for v in model.get_weights()])
        found = latest_saved(ctx.checkpoint_dir, ctx.attempt + 1)
        assert found is not None
        tf.train.Checkpoint(model=model).read(str(found / "model")).assert_consumed()
        seen["restored"] = [float(v.numpy().sum()) for v in model.trainable_variables]
    _meet(ctx, "saved")


def _loop(ctx: Any, seen: dict[str, Any]) -> None:
    optimizer = keras.optimizers.SGD(0.25)
    with ctx.parameter_servers():
        weight = tf.Variable([[0.0], [0.0]], name="weight")
    x = tf.constant([[1.0, 0.0], [0.0, 1.0]])

    def step() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((x @ weight - 1.0) ** 2)
        optimizer.apply(tape.gradient(loss, [weight]), [weight])
        return loss

    one_step = tf.function(step)
    losses = [float(one_step()) for _ in range(60)]
    _meet(ctx, "looped")
    seen["loop"] = {
        "losses": [losses[0], losses[-1]],
        "iterations": int(optimizer.iterations.numpy()),
        "weight": weight.numpy().reshape(-1).tolist(),
    }


def _train_a_second_model(ctx: Any, seen: dict[str, Any]) -> None:
    """Worker 1 never builds the optimizer of the first of two variables."""
    first_optimizer, second_optimizer = keras.optimizers.Adam(0.5), keras.optimizers.SGD(1.0)
    with ctx.parameter_servers():
        first = tf.Variable(tf.ones(1_000), name="first")
    if ctx.rank == 0:
        first_optimizer.apply([tf.ones(1_000)], [first])
    with ctx.parameter_servers():
        wide = tf.Variable(tf.zeros(1_000), name="wide")
        narrow = tf.Variable(tf.zeros(2), name="narrow")
    second_optimizer.apply([tf.ones(2)], [narrow])
    _meet(ctx, "stepped")
    seen["second"] = {
        "wide": wide.numpy().tolist(),
        "narrow": narrow.numpy().tolist(),
        "devices": [_device(wide), _device(narrow)],
        "iterations": int(second_optimizer.iterations.numpy()),
    }


def _sum_gradients(ctx: Any, seen: dict[str, Any]) -> None:
    with ctx.parameter_servers():
        variable = tf.Variable(tf.zeros(2), name="summed")
    try:
        keras.optimizers.SGD(gradient_accumulation_steps=4).apply([tf.ones(2)], [variable])
    except ConfigError as error:
        seen["sums_of_gradients"] = str(error)


def _differ(ctx: Any, seen: dict[str, Any]) -> None:
    if ctx.rank == 1:
        _look_up(ctx, "made", 0)
    try:
        with ctx.parameter_servers():
            tf.Variable(tf.zeros(3 + ctx.rank), name="differs")
    except ConfigError as error:
        seen["differs"] = str(error)
    ctx.publish(f"made-{ctx.rank}", "yes")


def _meet(ctx: Any, name: str) -> None:
    ctx.publish(f"{name}-{ctx.rank}", "yes")
    _look_up(ctx, name, 1 - ctx.rank)


def _look_up(ctx: Any, name: str, rank: int) -> None:
    ctx.lookup(f"{name}-{rank}", 100.0)


def _device(variable: Any) -> str:
    raw = variable.value if isinstance(variable, keras.Variable) else variable
    return str(raw.device)


@dataclass(frozen=True)
class Run:
    seen: list[Mapping[str, Any]]
    directory: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    directory = tmp_path_factory.mktemp("servers")
    testing.run(
        train,
        build_table(),
        framework="tensorflow",
        workers=2,
        ps=2,
        epochs=EPOCHS,
        split=[0.25, 0.75],
        batch_rows=BATCH,
        output_dir=directory,
        checkpoint_dir=directory / "checkpoints",
        timeout_s=220.0,
    )
    seen = [json.loads((directory / f"seen-{rank}.json").read_text()) for rank in (0, 1)]
    return Run(seen, directory)


def test_the_loss_falls_on_both_workers(run: Run) -> None:
    for seen in run.seen:
        assert seen["losses"][-1] < 0.7 * seen["losses"][0], seen["losses"]


def test_the_steps_of_both_workers_are_counted_exactly(run: Run) -> None:
    steps = EPOCHS * ROWS // BATCH
    assert [seen["iterations"] for seen in run.seen] == [steps, steps]


def test_the_one_that_saves_waits_until_the_rows_of_all_are_used_up(run: Run) -> None:
    own_steps = EPOCHS * ROWS // BATCH // 4
    at_least = 4 * own_steps - PER_EXECUTION  # the other's last steps may be on their way
    assert run.seen[0]["iterations_of_last"] >= at_least
    assert (run.directory / "last.weights.h5").stat().st_size > 4 * WORDS * WIDTH


def test_a_parameter_server_has_no_keras() -> None:
    code = (
        "import sys\n"
        "from headrace.tensorflow.serving import start_server\n"
        f"start_server({{'ps': ['127.0.0.1:{free_ports(1)[0]}']}}, role='ps', index=0)\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))\n"
    )
    told = server_role(1).environment
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**copy_environment(), **told},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "'tensorflow'" in done.stdout
    assert "'keras'" not in done.stdout
    assert "'torch'" not in done.stdout


def test_both_workers_see_the_same_variables(run: Run) -> None:
    assert run.seen[0]["sums"] == run.seen[1]["sums"]
    assert all(run.seen[0]["sums"])


def test_variables_are_spread_over_the_servers_and_all_workers_agree_where(run: Run) -> None:
    devices = {n: d for n, d in run.seen[0]["devices"].items() if "seed" not in n}
    assert set(devices.values()) == {ps_device(0), ps_device(1)}
    (large,) = [device for name, device in devices.items() if "embeddings" in name]
    assert [name for name, device in devices.items() if device == large][1:] == []
    kept = {n: d for n, d in run.seen[1]["devices"].items() if "seed" not in n}
    assert list(devices.values()) == list(kept.values())


def test_slots_of_the_optimizer_are_beside_their_variable(run: Run) -> None:
    beside = run.seen[0]["beside"]
    assert len(beside) == 10  # two slots for each of five variables
    assert all(variable == slot and "/job:ps" in slot for variable, slot in beside), beside
    assert run.seen[0]["slots"] > 0


def test_gradients_of_embeddings_stay_sparse_on_their_way_to_the_server(run: Run) -> None:
    for seen in run.seen:
        sparse = {n for n, kind in seen["gradients"].items() if kind == "IndexedSlices"}
        assert sparse == {f"({WORDS}, {WIDTH})"}
        assert len(seen["gradients"]) == 5


def test_metrics_rates_and_states_of_random_numbers_stay_in_the_process(run: Run) -> None:
    for seen in run.seen:
        seeds = {n: d for n, d in seen["devices"].items() if "seed" in n}
        local = {**seen["of_this_process"], **seeds}
        assert len(local) >= 4
        assert all("/job:localhost" in each for each in local.values()), local


def test_a_loop_with_an_optimizer_made_outside_trains_on_shared_variables(run: Run) -> None:
    for seen in run.seen:
        loop = seen["loop"]
        assert loop["iterations"] == 120
        assert loop["losses"][1] < 1e-6
        np.testing.assert_allclose(loop["weight"], [1.0, 1.0], atol=1e-3)


def test_what_is_made_after_an_optimizer_that_a_worker_never_built_is_shared(run: Run) -> None:
    ours, others = (seen["second"] for seen in run.seen)
    assert ours == others
    assert ours["wide"] == [0.0] * 1_000
    assert ours["narrow"] == [-2.0, -2.0]
    assert ours["iterations"] == 2


def test_sums_of_gradients_on_servers_are_refused(run: Run) -> None:
    for seen in run.seen:
        text = seen["sums_of_gradients"]
        assert "SGD(gradient_accumulation_steps=4)" in text
        assert "batches of 4 times the rows" in text


def test_what_was_made_before_the_servers_were_known_stays_usable(run: Run) -> None:
    assert [seen["early"] for seen in run.seen] == [2.0, 2.0]


def test_a_worker_has_imported_no_other_framework(run: Run) -> None:
    assert [seen["libraries"] for seen in run.seen] == [[], []]


def test_workers_with_different_models_are_told(run: Run) -> None:
    assert "differs" not in run.seen[0]
    text = run.seen[1]["differs"]
    for part in ("has the shape [3]", "[4] here", "the workers' models differ"):
        assert part in text, text


@pytest.mark.parametrize("name", ["model.keras", "model.weights.h5", "exported"])
def test_what_was_saved_predicts_the_same_in_a_process_without_servers(
    run: Run, name: str
) -> None:
    path = run.directory / name
    if name == "exported":
        exported = tf.saved_model.load(str(path))
        outputs = exported.serve(tf.constant(PROBE, tf.int64))
    elif name == "model.keras":
        outputs = keras.models.load_model(path)(PROBE)
    else:
        model = build_model()
        model.load_weights(path)
        outputs = model(PROBE)
    found = np.asarray(outputs.numpy()).reshape(-1)
    np.testing.assert_allclose(found, run.seen[0]["predicted"], rtol=1e-5, atol=1e-6)


def test_a_checkpoint_is_restored_onto_the_servers_and_without_them(run: Run) -> None:
    np.testing.assert_allclose(run.seen[0]["restored"], run.seen[0]["sums"], rtol=1e-6)
    place = latest_saved(run.directory / "checkpoints", 2)
    assert place is not None
    model = build_model()
    checkpoint = tf.train.Checkpoint(model=model)
    checkpoint.read(str(place / "model")).assert_existing_objects_matched()
    found = np.asarray(model(PROBE).numpy()).reshape(-1)
    np.testing.assert_allclose(found, run.seen[0]["predicted"], rtol=1e-5, atol=1e-6)


def test_a_job_without_servers_says_so() -> None:
    def enter(ctx: Any) -> None:
        with ctx.parameter_servers():
            pass

    with pytest.raises(PlanError, match="this job has none; plan it with ps=1"):
        testing.run(enter, framework="tensorflow")


def test_synchronous_steps_and_servers_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"ps=1 is for framework='tensorflow'"):
        testing.run(lambda ctx: None, framework="pytorch", ps=1)
