"""What may be emitted, and what is refused in words that help."""

from __future__ import annotations

from datetime import time
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import DataError
from headrace.role.emission import to_batches, to_timestamps_ms

FLOAT_LIST = pa.list_(pa.float32())
MASKED = np.ma.masked_equal([1, 2], 2)  # type: ignore[no-untyped-call]


def emitted(values: Any, kind: pa.DataType) -> list[Any]:
    schema = pa.schema([("c", kind)])
    (batch,) = to_batches({"c": values}, schema)
    assert batch.schema == schema
    batch.validate(full=True)
    got: list[Any] = batch.column(0).to_pylist()
    return got


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (np.array([1.5, np.nan], np.float64), pa.float32(), [1.5, None]),
        (np.array([1, 2]), pa.int8(), [1, 2]),
        (np.array([1.5], np.float16), pa.float64(), [1.5]),
        (np.array([True, False]), pa.bool_(), [True, False]),
        (np.array(["a", "é"]), pa.utf8(), ["a", "é"]),
        (np.array(["a", None], object), pa.utf8(), ["a", None]),
        (np.array([b"a"]), pa.binary(), [b"a"]),
        (MASKED, pa.int64(), [1, None]),
        (np.array([3, 1, 2])[::-1], pa.int64(), [2, 1, 3]),
        (np.arange(6).reshape(3, 2), FLOAT_LIST, [[0, 1], [2, 3], [4, 5]]),
        (np.arange(6).reshape(2, 3).T, FLOAT_LIST, [[0, 3], [1, 4], [2, 5]]),
        (np.zeros((2, 0)), FLOAT_LIST, [[], []]),
        (np.zeros((2, 1, 2)), pa.list_(FLOAT_LIST), [[[0, 0]], [[0, 0]]]),
        (np.array([[1], [2, 3]], object), FLOAT_LIST, [[1], [2, 3]]),
        ([np.array([1, 2]), np.array([3])], FLOAT_LIST, [[1, 2], [3]]),
        ([[1.0], None, []], FLOAT_LIST, [[1.0], None, []]),
        ([1, None], pa.int32(), [1, None]),
        ((1, 2), pa.int32(), [1, 2]),
        ([np.float32(1.5), np.array(2.5)], pa.float32(), [1.5, 2.5]),
        ([Decimal("1.25")], pa.decimal128(5, 2), [Decimal("1.25")]),
        (np.array([3661], "m8[s]"), pa.time32("ms"), [time(1, 1, 1)]),
        (np.array(["NaT", "1"], "m8[ns]"), pa.time64("ns"), [None, time(0, 0, 0)]),
        (pa.array([1, 2], pa.int16()), pa.int64(), [1, 2]),
        (pa.chunked_array([[1], [2]]), pa.int64(), [1, 2]),
        (range(3), pa.int32(), [0, 1, 2]),
        ([{"a": 1}], pa.struct([("a", pa.int32())]), [{"a": 1}]),
    ],
)
def test_array_likes_become_columns(
    values: Any, kind: pa.DataType, expected: list[Any]
) -> None:
    got = emitted(values, kind)
    if isinstance(values, np.ndarray) and values.dtype == np.float64 and values.ndim == 1:
        assert got[0] == expected[0]
        assert np.isnan(got[1])
    elif pa.types.is_time64(kind):
        assert got[0] is None
    else:
        assert got == expected


def test_dates_and_instants_keep_their_value() -> None:
    days = np.array(["2020-01-02", "NaT"], "M8[D]")
    assert [str(day) for day in emitted(days, pa.date32())] == ["2020-01-02", "None"]
    instant = np.array(["2020-01-02T03:04:05"], "M8[s]")
    for kind in (pa.timestamp("ms"), pa.timestamp("ns"), pa.timestamp("s", "UTC")):
        assert str(emitted(instant, kind)[0]).startswith("2020-01-02 03:04:05")


def test_tensors_are_detached_and_taken_as_they_are() -> None:
    torch = pytest.importorskip("torch")
    weights = torch.ones(2, requires_grad=True)
    assert emitted(weights * 2, pa.float32()) == [2.0, 2.0]
    assert emitted(torch.ones(2, dtype=torch.bfloat16), pa.float32()) == [1.0, 1.0]
    assert emitted(torch.arange(4).reshape(2, 2), FLOAT_LIST) == [[0, 1], [2, 3]]
    assert emitted([torch.tensor(1.5), torch.tensor(2.5)], pa.float32()) == [1.5, 2.5]
    assert emitted(torch.tensor([True]), pa.bool_()) == [True]


@pytest.mark.parametrize("value", [1.5, "abc", b"abc", np.float32(1), np.array(3), None])
def test_single_values_are_refused(value: Any) -> None:
    with pytest.raises(DataError, match=r"'c' is a single value.*numpy\.full"):
        emitted(value, pa.float32())


@pytest.mark.parametrize(
    ("values", "kind", "told"),
    [
        (np.array([1.5]), pa.int32(), "'c' .double. cannot become int32.*1.5"),
        (np.array(["x"]), pa.int32(), "'c' holds string.*int32"),
        (np.zeros((2, 2)), pa.float32(), r"'c' has shape \(2, 2\).*float.*\(2,\)"),
        (np.zeros(2), FLOAT_LIST, "'c' holds double.*list"),
        ([1, "x"], pa.int32(), "'c'.*int32"),
        ([300], pa.int8(), "'c'.*int8"),
        (np.array([1 + 2j]), pa.float32(), "'c' holds complex128.*float"),
        (np.array([[1.5]]), pa.list_(pa.int32()), "'c' .double. cannot become int32"),
        (object(), pa.int32(), "'c' is a single value .object."),
    ],
)
def test_what_does_not_fit_is_refused_with_column_and_types(
    values: Any, kind: pa.DataType, told: str
) -> None:
    with pytest.raises(DataError, match=told):
        emitted(values, kind)


SCHEMA = pa.schema([("a", pa.int64()), ("b", pa.utf8())])


def test_columns_of_different_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="a: 2, b: 1"):
        to_batches({"a": [1, 2], "b": ["x"]}, SCHEMA)


def test_missing_and_extra_columns_are_named() -> None:
    with pytest.raises(DataError, match="missing: b; not in the output: z"):
        to_batches({"a": [1], "z": [1]}, SCHEMA)


def test_something_else_than_columns_is_refused() -> None:
    with pytest.raises(DataError, match="not list"):
        to_batches([1], SCHEMA)


def test_tables_and_batches_are_taken_in_any_order_of_columns() -> None:
    table = pa.table({"b": ["x", "y", "z"], "a": pa.array([1, 2, 3], pa.int8())})
    (batch,) = to_batches(table.to_batches()[0], SCHEMA)
    assert batch.to_pydict() == {"a": [1, 2, 3], "b": ["x", "y", "z"]}
    parts = to_batches(pa.concat_tables([table, table.slice(0, 0), table]), SCHEMA)
    assert pa.Table.from_batches(parts).to_pydict()["a"] == [1, 2, 3, 1, 2, 3]


def test_timestamps_are_milliseconds() -> None:
    assert to_timestamps_ms(None) is None
    for values in (
        [1, None],
        pa.array([1, None], pa.int64()),
        np.array([1, "NaT"], "M8[ms]"),
        np.array([1_000_000, "NaT"], "M8[ns]"),
    ):
        stamps = to_timestamps_ms(values)
        assert stamps is not None
        assert stamps.type == pa.int64()
        assert stamps.to_pylist() == [1, None]


def test_timestamps_of_another_kind_are_refused() -> None:
    with pytest.raises(DataError, match="timestamps_ms"):
        to_timestamps_ms(["now"])
    with pytest.raises(DataError, match="timestamps_ms"):
        to_timestamps_ms(5)
