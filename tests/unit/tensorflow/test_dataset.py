"""The input of a worker as a `tf.data.Dataset`, in the process of the test."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from headrace import testing
from headrace.errors import ConfigError, DataError, UsageError
from headrace.exchange import Batch, End, MemoryFeed
from headrace.exchange.frames import EndFrame
from headrace.tensorflow import TFContext, TFEntry
from headrace.tensorflow.columns import plan_columns
from headrace.tensorflow.dataset import Layout, build_dataset
from tests.unit.exchange.peer import Peer
from tests.unit.role.doubles import FakeLink, spec_in
from tests.waiting import until

pytestmark = [
    pytest.mark.timeout(60),  # the first test waits for TensorFlow
    # Keras 3.15 says so at the end of each pass over a dataset whose length is unknown.
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]

EVERY = pa.table(
    {
        "i": pa.array([1, 2, 3], pa.int32()),
        "f": pa.array([0.5, 1.5, 2.5], pa.float32()),
        "d": pa.array([1.0, 2.0, 3.0], pa.float64()),
        "b": pa.array([True, False, True]),
        "s": pa.array(["a", "", "ö"]),
        "y": pa.array([b"\x00", b"", b"z"]),
        "k": pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32())),
        "r": pa.array([[1], [], [2, 3]], pa.list_(pa.int64())),
    }
)
COUNT = pa.table({"n": np.arange(20), "x": np.arange(20, dtype=np.float32)})


def run(entry: Any, table: pa.Table = COUNT, **settings: Any) -> testing.RunResult:
    return testing.run(entry, table, framework="tensorflow", **settings)


def seen_by(read: Any, table: pa.Table = COUNT, **settings: Any) -> list[Any]:
    """Return what `read` yields in an entry function."""
    found: list[Any] = []
    run(lambda ctx: found.extend(read(ctx)), table, **settings)
    return found


def numbers(batches: Any) -> list[list[int]]:
    return [batch["n"].numpy().tolist() for batch in batches]


def test_the_specs_are_exact() -> None:
    (spec,) = seen_by(lambda ctx: [ctx.dataset(2, shapes={"k": (2,)}).element_spec], EVERY)
    plain = {"i": tf.int32, "f": tf.float32, "d": tf.float64, "b": tf.bool, "s": tf.string}
    expected = {name: tf.TensorSpec((None,), dtype) for name, dtype in plain.items()}
    expected["y"] = tf.TensorSpec((None,), tf.string)
    expected["k"] = tf.TensorSpec((None, 2), tf.float32)
    ragged = spec.pop("r")
    assert spec == expected
    assert isinstance(ragged, tf.RaggedTensorSpec)
    assert (ragged.shape.as_list(), ragged.dtype, ragged.ragged_rank) == (
        [None, None],
        tf.int64,
        1,
    )


def test_tensorflow_is_given_no_memory_of_the_rows() -> None:
    """It writes results over what it no longer needs, such as labels in the loss of `fit`."""
    plans = plan_columns(EVERY.schema, shapes={"k": (2,)})
    layout = Layout(plans, features=None, label="f")
    (batch,) = EVERY.combine_chunks().to_batches()
    for array in layout.read(batch):
        array.fill(array.dtype.type())
    assert pa.Table.from_batches([batch]).equals(EVERY)


def test_the_content_is_that_of_the_rows() -> None:
    batches = seen_by(lambda ctx: ctx.dataset(2, shapes={"k": (2,)}), EVERY, batch_rows=3)
    assert [len(batch["i"]) for batch in batches] == [2, 1]
    for name in EVERY.column_names:
        found: list[Any] = []
        for batch in batches:
            tensor = batch[name]
            is_ragged = isinstance(tensor, tf.RaggedTensor)
            found += tensor.to_list() if is_ragged else tensor.numpy().tolist()
        expected = EVERY[name].to_pylist()
        if name == "s":
            expected = [text.encode() for text in expected]
        assert found == expected


def test_features_are_one_matrix_and_the_label_is_the_second_part() -> None:
    def read(ctx: Any) -> Any:
        data = ctx.dataset(3, features=["d", "i", "b"], label="f")
        assert data.element_spec == (
            tf.TensorSpec((None, 3), tf.float32),
            tf.TensorSpec((None,), tf.float32),
        )
        return data

    ((matrix, label),) = seen_by(read, EVERY)
    assert matrix.numpy().tolist() == [[1, 1, 1], [2, 2, 0], [3, 3, 1]]
    assert label.numpy().tolist() == [0.5, 1.5, 2.5]


def test_a_column_that_is_no_feature_may_have_any_type() -> None:
    table = pa.table({"x": [1.0, 2.0], "at": pa.array([0, 1], pa.timestamp("ms"))})
    ((matrix, label),) = seen_by(
        lambda ctx: ctx.dataset(2, features=["x"], label=["x"]), table, batch_rows=2
    )
    assert matrix.numpy().tolist() == [[1.0], [2.0]]
    assert label["x"].numpy().tolist() == [1.0, 2.0]


def test_several_labels_are_a_mapping_and_leave_the_features() -> None:
    ((features, labels),) = seen_by(
        lambda ctx: ctx.dataset(3, columns=["i", "f", "s"], label=["f", "i"]), EVERY
    )
    assert list(features) == ["s"]
    assert {name: each.numpy().tolist() for name, each in labels.items()} == {
        "f": [0.5, 1.5, 2.5],
        "i": [1, 2, 3],
    }


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"columns": ["x"]}, r"no column 'x'; the input has \['i', 'f'"),
        ({"label": "x"}, r"label 'x' is not among the columns"),
        ({"features": ["x"]}, r"no column 'x'; the input has"),
        ({"columns": ["f"], "features": ["i"]}, r"feature 'i' is not among the columns"),
        ({"features": []}, r"features=\[\]\): name at least one column"),
        ({"features": ["s"]}, r"feature 's' is no column of numbers"),
        ({"features": ["k"]}, r"feature 'k' is no column of numbers"),
        ({"rows": 0}, r"rows=0 must be a whole number of at least 1"),
    ],
)
def test_what_does_not_fit_the_input_is_told(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        run(lambda ctx: ctx.dataset(**settings), EVERY)


def test_null_arrives_as_the_error_of_its_column_and_not_as_text_of_tensorflow() -> None:
    table = pa.table({"n": pa.array([1, None])})
    with pytest.raises(DataError, match=r"Column 'n' .* 1 NULL in 2 values"):
        run(lambda ctx: list(ctx.dataset(2)), table)


def test_null_comes_as_a_mask_or_a_default() -> None:
    table = pa.table({"n": pa.array([1, None]), "m": pa.array([None, "a"])})
    (batch,) = seen_by(lambda ctx: ctx.dataset(2, nulls="mask", defaults={"m": "?"}), table)
    assert {name: each.numpy().tolist() for name, each in batch.items()} == {
        "n": [1, 0],
        "n__valid": [True, False],
        "m": [b"?", b"a"],
    }


def test_nothing_is_read_ahead_so_a_loop_that_was_left_goes_on_with_the_next_row() -> None:
    def read(ctx: Any) -> Any:
        for number, batch in enumerate(ctx.dataset(4)):
            yield batch
            if number == 2:
                break
        yield None
        yield from ctx.dataset(4)

    found = seen_by(read)
    assert found[3] is None
    assert numbers(found[:3]) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert numbers(found[4:]) == [[12, 13, 14, 15], [16, 17, 18, 19]]


def test_each_iteration_is_one_pass_and_one_more_is_an_error_of_its_own_class() -> None:
    def read(ctx: Any) -> Any:
        data = ctx.dataset(8)
        for _ in range(2):
            yield from data
        with pytest.raises(tf.errors.OpError):
            next(iter(data))
        yield from data

    found: list[Any] = []
    with pytest.raises(UsageError, match=r"iterated 3 times.*Plan epochs=3"):
        run(lambda ctx: found.extend(read(ctx)), epochs=2)


def test_passes_see_every_row_once_also_when_one_was_left() -> None:
    def read(ctx: Any) -> Any:
        data = ctx.dataset(8)
        yield next(iter(data))
        yield from data
        yield from data

    rows = [row for batch in numbers(seen_by(read, epochs=2)) for row in batch]
    assert rows == [*range(20)] * 2


def test_batches_that_arrive_in_other_sizes_lose_no_row() -> None:
    for batch_rows in (1, 3, 1000):
        found = numbers(seen_by(lambda ctx: ctx.dataset(8), batch_rows=batch_rows))
        assert found == [[*range(8)], [*range(8, 16)], [*range(16, 20)]]


def test_an_empty_input_is_an_empty_dataset() -> None:
    assert seen_by(lambda ctx: ctx.dataset(4), COUNT.slice(0, 0)) == []


def test_ctx_batches_gives_numpy_and_shares_the_rows_with_the_dataset() -> None:
    def read(ctx: Any) -> Any:
        yield next(iter(ctx.batches(4)))["n"].tolist()
        yield from numbers(ctx.dataset(8))

    assert seen_by(read) == [[*range(4)], [*range(4, 12)], [*range(12, 20)]]


@pytest.mark.parametrize("per_execution", [1, 10])
def test_fit_trains_on_every_row_of_every_pass(per_execution: int) -> None:
    def train(ctx: Any) -> None:
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse", steps_per_execution=per_execution)
        data = ctx.dataset(3, features=["x"], label="x")
        model.fit(data, epochs=ctx.epochs, shuffle=False, verbose=0)
        ctx.report(steps=model.optimizer.iterations.numpy())

    result = run(train, epochs=3)
    assert result.reports[0]["steps"] == 21
    assert result.rows_in == (20,)


def test_a_role_without_rows_has_no_dataset() -> None:
    with pytest.raises(UsageError, match="'worker' gets no rows"):
        testing.run(lambda ctx: ctx.dataset(4), framework="tensorflow")


def test_ctx_batches_goes_on_where_a_loop_over_the_dataset_was_left() -> None:
    def read(ctx: Any) -> Any:
        yield from numbers(itertools.islice(ctx.dataset(4), 2))
        yield from (batch["n"].tolist() for batch in ctx.batches(8))

    assert seen_by(read) == [[*range(4)], [*range(4, 8)], [*range(8, 16)], [*range(16, 20)]]


def test_an_iterator_of_ctx_batches_does_not_go_on_behind_a_dataset() -> None:
    def read(ctx: Any) -> Any:
        batches = iter(ctx.batches(8))
        yield next(batches)["n"].tolist()
        yield from numbers(itertools.islice(ctx.dataset(4), 1))
        with pytest.raises(UsageError, match=r"Call ctx\.batches again"):
            next(batches)
        yield from (batch["n"].tolist() for batch in ctx.batches(8))

    assert seen_by(read) == [[*range(8)], [*range(8, 12)], [*range(12, 20)]]


def test_an_iterator_of_ctx_batches_made_before_a_dataset_does_not_begin_behind_it() -> None:
    def read(ctx: Any) -> Any:
        batches = iter(ctx.batches(8))
        yield from numbers(itertools.islice(ctx.dataset(4), 1))
        with pytest.raises(UsageError, match=r"Call ctx\.batches again"):
            next(batches)

    assert seen_by(read) == [[*range(4)]]


def test_an_iteration_of_large_batches_that_has_ended_does_not_begin_the_next_pass() -> None:
    def read(ctx: Any) -> Any:
        for _ in range(2):
            iterator = iter(ctx.dataset(4_096))
            yield [len(batch["n"]) for batch in iterator]
            yield [len(batch["n"]) for batch in iterator]

    passes = [len(rows) for rows in seen_by(read, epochs=2)]
    assert passes == [1, 0, 1, 0]


def test_no_columns_at_all_are_told() -> None:
    with pytest.raises(ConfigError, match=r"columns=\[\].*at least one column"):
        run(lambda ctx: ctx.dataset(4, columns=[]))


def test_a_stray_stop_iteration_is_an_error_and_no_end() -> None:
    plans = plan_columns(COUNT.schema)
    layout = Layout(plans, features=None, label=None)
    data = build_dataset(layout, lambda is_first: next(iter(())), None)
    with pytest.raises(tf.errors.UnknownError, match="which is not its end"):
        next(iter(data))


def test_rows_in_are_those_that_were_taken() -> None:
    result = run(lambda ctx: [*itertools.islice(ctx.dataset(4), 2)])
    assert result.rows_in == (8,)


def test_an_iteration_that_goes_on_beside_a_later_one_is_an_error_and_doubles_no_row() -> None:
    def read(ctx: Any) -> Any:
        data = ctx.dataset(4)
        first, second = iter(data), iter(data)
        yield from numbers([next(first), next(second)])
        with pytest.raises(tf.errors.InvalidArgumentError, match="an earlier iteration goes"):
            next(first)
        yield from numbers(itertools.islice(second, 1))  # left inside its portion
        yield from (batch["n"].tolist() for batch in ctx.batches(4))

    assert seen_by(read) == [[*range(i, i + 4)] for i in range(0, 20, 4)]


def test_it_may_be_made_where_a_strategy_is_in_force() -> None:
    def read(ctx: Any) -> Any:
        with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
            data = ctx.dataset(4)
            yield from numbers(itertools.islice(data, 2))
        yield from numbers(data)

    assert seen_by(read) == [[*range(i, i + 4)] for i in range(0, 20, 4)]


def test_timestamps_are_those_of_the_batch_that_was_taken_last(tmp_path: Path) -> None:
    stamps = pa.array([None if i == 3 else i for i in range(10)], pa.int64())
    columns = pa.record_batch({"n": pa.array(range(10))})
    feed = MemoryFeed([Batch(columns, stamps), End()], input_schema=columns.schema)
    ctx = TFContext(spec=spec_in(tmp_path), link=FakeLink(), feed=feed)
    found = []
    for batch in ctx.dataset(4):
        assert ctx.timestamps_ms is not None
        found.append((batch["n"].numpy().tolist(), ctx.timestamps_ms.to_pylist()))
    assert found == [
        ([0, 1, 2, 3], [0, 1, 2, None]),
        ([4, 5, 6, 7], [4, 5, 6, 7]),
        ([8, 9], [8, 9]),
    ]


def test_an_iterator_that_outlives_the_function_lets_it_end(tmp_path: Path) -> None:
    rows = pa.record_batch({"x": pa.array([0.5, 1.5, 2.5, 3.5], pa.float32())})
    peer = Peer(tmp_path, input_schema=rows.schema, output_schema=rows.schema)
    channel = peer.open_channel()
    kept: list[Any] = []

    def read(ctx: TFContext) -> None:
        kept.append(iter(ctx.dataset(2).prefetch(2)))
        assert next(kept[0])["x"].numpy().tolist() == [0.5, 1.5]
        until(channel._use.locked, "the thread that reads ahead, in the memory queue")

    peer.send_rows(rows)
    with contextlib.closing(peer):
        TFEntry(read)(spec_in(tmp_path), FakeLink(), feed=channel)
        frames = [*iter(peer.next_frame, None)]
        assert next(kept[0])["x"].numpy().tolist() == [2.5, 3.5]
        with pytest.raises(tf.errors.OpError, match="The entry function has ended"):
            next(kept[0])
    assert frames[-1] == EndFrame()


@pytest.mark.parametrize("rows", [3, 300, 5000])
def test_every_row_comes_once_whatever_comes_together(rows: int) -> None:
    table = pa.table({"n": np.arange(10_000), "s": [str(i) for i in range(10_000)]})
    found = seen_by(lambda ctx: ctx.dataset(rows), table, batch_rows=4096, epochs=1)
    sizes = [len(batch["n"]) for batch in found]
    assert sizes == [rows] * (10_000 // rows) + ([10_000 % rows] if 10_000 % rows else [])
    assert [n for each in numbers(found) for n in each] == [*range(10_000)]
    assert [int(s) for batch in found for s in batch["s"].numpy()] == [*range(10_000)]


def test_a_pass_that_was_left_in_the_middle_of_a_spooled_batch_goes_on_there() -> None:
    table = pa.table({"n": np.arange(5000)})

    def read(ctx: Any) -> Any:
        data = ctx.dataset(100)
        yield from data
        for taken in (1, 7, 20):
            yield from itertools.islice(data, taken)
        yield from data

    found = numbers(seen_by(read, table, batch_rows=512, epochs=2))
    assert [n for each in found for n in each] == [*range(5000)] * 2


def test_an_exception_of_the_entry_function_arrives_as_it_is() -> None:
    def train(ctx: Any) -> None:
        for _ in ctx.dataset(4):
            msg = "boom"
            raise ValueError(msg)

    with pytest.raises(ValueError, match="boom"):
        run(train)
