"""Models of TensorFlow and Keras score as they do when they are called directly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from headrace.errors import ConfigError, DataError
from headrace.inference import Model
from headrace.tensorflow import KerasModel, SavedModel

from .scoring import score

pytestmark = [
    # Keras 3.15 copies variables in a way that NumPy 2 deprecates.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

NAMES = [f"x{n}" for n in range(4)]
FLOAT = pa.float32()
BATCH = 64


def rows(count: int = 200) -> pa.Table:
    random = np.random.default_rng(3)
    return pa.table({name: random.random(count, np.float32) for name in NAMES})


def batches(table: pa.Table) -> list[Any]:
    matrix = np.stack([table[name].to_numpy() for name in NAMES], 1)
    return [matrix[n : n + BATCH] for n in range(0, len(matrix), BATCH)]


@pytest.fixture(scope="module")
def net() -> Any:
    keras.utils.set_random_seed(1)
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(8, "relu")(x))
    return keras.Model(x, keras.layers.Dense(1, name="y")(hidden))


@pytest.fixture(scope="module")
def two_inputs() -> Any:
    keras.utils.set_random_seed(2)
    word = keras.Input((), name="word", dtype="int64")
    scale = keras.Input((1,), name="scale")
    vector = keras.layers.Embedding(10, 4)(word) * scale
    return keras.Model(
        {"word": word, "scale": scale},
        {"vector": vector, "length": keras.layers.Dense(1)(vector)},
    )


def saved(model: Any, kind: str, folder: Path) -> Model:
    if kind == "keras":
        model.save(folder / "model.keras")
        return KerasModel(folder / "model.keras")
    model.export(folder / "exported", verbose=False)
    return SavedModel(str(folder / "exported"))


@pytest.mark.parametrize("kind", ["keras", "saved"])
def test_scores_are_those_of_the_model_called_on_the_same_batches(
    net: Any, kind: str, tmp_path: Path
) -> None:
    model = saved(net, kind, tmp_path)
    scored = score(
        rows(), model, {"y": FLOAT}, inputs=NAMES, batch_rows=BATCH, receive_rows=BATCH
    )
    if kind == "keras":
        expected = [net.predict_on_batch(each) for each in batches(rows())]
    else:
        loaded = tf.saved_model.load(str(tmp_path / "exported"))
        serve = loaded.signatures["serving_default"]
        name = next(iter(serve.structured_input_signature[1]))
        expected = [
            next(iter(serve(**{name: tf.constant(each)}).values())).numpy()
            for each in batches(rows())
        ]
    assert scored["y"].to_pylist() == np.concatenate(expected)[:, 0].tolist()


def test_a_sequential_model_scores(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    scored = score(rows(), saved(model, "keras", tmp_path), {"y": FLOAT}, inputs=NAMES)
    matrix = np.stack([rows()[name].to_numpy() for name in NAMES], 1)
    assert scored["y"].to_pylist() == model.predict_on_batch(matrix)[:, 0].tolist()


@pytest.mark.parametrize("kind", ["keras", "saved"])
def test_inputs_and_outputs_go_by_name(two_inputs: Any, kind: str, tmp_path: Path) -> None:
    model = saved(two_inputs, kind, tmp_path)
    table = pa.table({"scale": [1.0, 2.0, 3.0], "word": pa.array([3, 1, 2], pa.int32())})
    outputs = {"length": FLOAT, "vector": pa.list_(FLOAT)}
    scored = score(table, model, outputs)
    given = {
        "word": np.array([3, 1, 2]),
        "scale": np.array([[1], [2], [3]], np.float32),
    }
    expected = two_inputs.predict_on_batch(given)
    np.testing.assert_allclose(scored["vector"].to_pylist(), expected["vector"], rtol=1e-6)
    np.testing.assert_allclose(scored["length"].to_numpy(), expected["length"][:, 0], 1e-6)


@pytest.mark.parametrize("kind", ["keras", "saved"])
@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        (NAMES[:3], r"takes .*: float32 \(rows, 4\), and .* gives .* \(rows, 3\)"),
        ("x0", r"takes .*: float32 \(rows, 4\), and inputs='x0' gives x0: float32 \(rows\)"),
        (None, r"takes \(.*: float32 \(rows, 4\)\), and the rows have the columns"),
        ({"z": NAMES}, r"takes \(.*\), and inputs names \(z\)"),
    ],
)
def test_what_does_not_fit_is_told_before_the_first_row(
    net: Any, kind: str, inputs: Any, told: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told):
        score(rows(0), saved(net, kind, tmp_path), {"y": FLOAT}, inputs=inputs)


TEXT = tf.TensorSpec([None], tf.string, "text")


class Sums(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """Takes two small integers."""

    @tf.function(  # type: ignore[untyped-decorator] # the same
        input_signature=[
            tf.TensorSpec([None], tf.int32, "b"),
            tf.TensorSpec([None, 2], tf.int32, "a"),
        ]
    )
    def add(self, b: Any, a: Any) -> Any:
        return {"sum": b + tf.reduce_sum(a, 1)}


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> SavedModel:
    module, path = Sums(), tmp_path_factory.mktemp("models") / "sums"
    tf.saved_model.save(module, str(path), {"serving_default": module.add})
    return SavedModel(path)


SUM = {"sum": pa.int32()}


def test_integers_that_the_model_cannot_hold_are_errors_of_their_rows(
    sums: SavedModel,
) -> None:
    table = pa.table({"x": [1, 5_000_000_000, 3], "y": [2**31, 1, 4]})
    inputs = {"a": ["x", "y"], "b": "x"}
    with pytest.raises(DataError, match=r"'x' has the value 5000000000, and .* int32"):
        score(table, sums, SUM, inputs=inputs)
    scored = score(table, sums, SUM, inputs=inputs, on_error="null", error_column="why")
    assert scored["sum"].to_pylist() == [None, None, 10]
    assert "'y' has the value 2147483648" in scored["why"].to_pylist()[0]
    wide = pa.table({"x": [0.9], "y": [1]})
    with pytest.raises(ConfigError, match=r"takes a: int32 .* gives x: float64"):
        score(wide, sums, SUM, inputs={"a": ["x", "y"], "b": "y"})


def test_inputs_that_have_names_and_no_order_are_given_by_name(sums: SavedModel) -> None:
    table = pa.table({"x": [1], "y": [2]})
    with pytest.raises(ConfigError, match="knows its inputs by name only"):
        score(table, sums, SUM, inputs=("x", ["x", "y"]))
    for made, told in (
        (lambda c: (c["x"], c["y"]), "knows its inputs by name only"),
        (lambda c: {"a": c["x"]}, r"the function of `inputs` gives \(0 by position; a\)"),
        (lambda c: {"a": c["x"], "b": c["x"], "c": c["x"]}, r"0 by position; a; b; c"),
    ):
        with pytest.raises(ConfigError, match=told):
            score(table, sums, SUM, inputs=made, on_error="null")


class Lengths(tf.Module):  # type: ignore[misc] # TensorFlow has no types
    """Two signatures over text."""

    @tf.function(input_signature=[TEXT])  # type: ignore[untyped-decorator] # the same
    def shout(self, text: Any) -> Any:
        return {"loud": tf.strings.upper(text)}

    @tf.function(input_signature=[TEXT])  # type: ignore[untyped-decorator] # the same
    def count(self, text: Any) -> Any:
        return {"characters": tf.strings.length(text)}


def test_a_signature_is_chosen_by_its_name_and_takes_text(tmp_path: Path) -> None:
    module, path = Lengths(), tmp_path / "lengths"
    tf.saved_model.save(module, str(path), {"shout": module.shout, "count": module.count})
    table = pa.table({"text": ["a", "bcd"]})
    counted = score(table, SavedModel(path, "count"), {"characters": pa.int32()})
    assert counted["characters"].to_pylist() == [1, 3]
    shouted = score(table, SavedModel(path, "shout"), {"loud": pa.string()})
    assert shouted["loud"].to_pylist() == ["A", "BCD"]
    with pytest.raises(ConfigError, match=r"no signature 'serving_default'; it has .*shout"):
        score(table, SavedModel(path), {"loud": pa.string()})
    with pytest.raises(ConfigError, match=r"takes text: str .* gives text: int64"):
        score(pa.table({"text": [1]}), SavedModel(path, "count"), {"characters": pa.int32()})


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (KerasModel("/nowhere/model.keras"), "There is no .keras file at /nowhere"),
        (SavedModel("/nowhere/model"), "There is no SavedModel"),
    ],
)
def test_a_model_that_is_not_there_is_told(model: Model, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        score(rows(), model, {"y": FLOAT}, inputs=NAMES)


def test_a_file_that_keras_cannot_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "model.keras").write_text("no model")
    with pytest.raises(ConfigError, match=r"model.keras cannot be read by Keras 3"):
        score(rows(), KerasModel(tmp_path / "model.keras"), {"y": FLOAT}, inputs=NAMES)
