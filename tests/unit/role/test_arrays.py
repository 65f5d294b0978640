"""Arrow columns as NumPy arrays: the rule of each type, and of NULL in it."""

from __future__ import annotations

from datetime import date, datetime, time, timezone
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import DataError
from headrace.role import to_numpy
from headrace.role.arrays import column_to_numpy

NAT = "NaT"
YEAR_ONE = datetime(1, 1, 1)  # noqa: DTZ001 (TIMESTAMP has no time zone)
YEAR_2020 = datetime(2020, 1, 1)  # noqa: DTZ001


def array_of(values: list[Any], kind: pa.DataType) -> np.ndarray[Any, Any]:
    # A slice of something longer: offsets must be minded.
    column = pa.array([*values[:1], *values, *values[:1]], kind).slice(1, len(values))
    return column_to_numpy("c", column)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.int8(), "int8"),
        (pa.int16(), "int16"),
        (pa.int32(), "int32"),
        (pa.int64(), "int64"),
        (pa.float32(), "float32"),
        (pa.float64(), "float64"),
    ],
)
def test_numbers_without_null_are_views(kind: pa.DataType, dtype: str) -> None:
    column = pa.array([1, 2, 3], kind)
    array = column_to_numpy("c", column)
    assert array.dtype == dtype
    assert array.tolist() == [1, 2, 3]
    assert array.ctypes.data == column.buffers()[1].address
    assert not array.flags.writeable


def test_null_in_floating_point_is_nan_of_the_same_width() -> None:
    array = array_of([1.5, None, -0.0], pa.float32())
    assert array.dtype == np.float32
    assert np.isnan(array[1])
    assert np.signbit(array[2])


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.bool_()])
def test_null_in_integers_and_booleans_is_an_error_that_says_what_to_do(
    kind: pa.DataType,
) -> None:
    with pytest.raises(DataError, match=r"'age'.*1 NULL in 2.*COALESCE.*nulls='mask'"):
        column_to_numpy("age", pa.array([1, None], pa.int64()).cast(kind))


def test_booleans_are_bool() -> None:
    array = array_of([True, False, True], pa.bool_())
    assert array.dtype == np.bool_
    assert array.tolist() == [True, False, True]


@pytest.mark.parametrize(
    ("values", "kind", "dtype", "expected"),
    [
        ([date(2020, 1, 2), None], pa.date32(), "M8[D]", ["2020-01-02", NAT]),
        ([YEAR_ONE, None], pa.timestamp("us"), "M8[us]", ["0001-01-01T00:00", NAT]),
        ([YEAR_2020], pa.timestamp("ms"), "M8[ms]", ["2020-01-01"]),
        (
            [datetime(2020, 1, 1, 5, tzinfo=timezone.utc)],
            pa.timestamp("s", "UTC"),
            "M8[s]",
            ["2020-01-01T05:00"],
        ),
    ],
)
def test_instants_are_datetime64(
    values: list[Any], kind: pa.DataType, dtype: str, expected: list[str]
) -> None:
    array = array_of(values, kind)
    assert array.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(array, np.array(expected, dtype))


@pytest.mark.parametrize(
    ("kind", "dtype", "factor"),
    [
        (pa.time32("s"), "m8[s]", 1),
        (pa.time32("ms"), "m8[ms]", 10**3),
        (pa.time64("us"), "m8[us]", 10**6),
        (pa.time64("ns"), "m8[ns]", 10**9),
    ],
)
def test_times_are_timedelta64_since_midnight(
    kind: pa.DataType, dtype: str, factor: int
) -> None:
    array = array_of([time(1, 0, 1), None], kind)
    assert array.dtype == np.dtype(dtype)
    assert array[0].astype(np.int64) == 3601 * factor
    assert np.isnat(array[1])


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["a", None, "", "é\n"], pa.utf8()),
        ([b"a", None, b"\0"], pa.binary()),
        ([Decimal("1.10"), None], pa.decimal128(38, 2)),
        ([{"a": 1, "b": None}, None], pa.struct([("a", pa.int32()), ("b", pa.utf8())])),
        ([[("k", 1)], None, []], pa.map_(pa.utf8(), pa.int32())),
        ([["x", None], None], pa.list_(pa.utf8())),
        ([["x"], ["y"]], pa.list_(pa.utf8())),
        ([[[1], [2]], [[3], [4]]], pa.list_(pa.list_(pa.int32()))),
    ],
)
def test_the_rest_is_python_objects(values: list[Any], kind: pa.DataType) -> None:
    array = array_of(values, kind)
    assert array.dtype == object
    assert array.shape == (len(values),)
    assert list(array) == values


def test_lists_of_one_length_are_a_matrix_without_a_copy() -> None:
    column = pa.array([[0.0], [1.0], [3.0]], pa.list_(pa.float32())).slice(1)
    array = column_to_numpy("c", column)
    assert array.shape == (2, 1)
    assert array.tolist() == [[1.0], [3.0]]
    assert array.ctypes.data == column.values.buffers()[1].address + 4


def test_empty_lists_are_a_matrix_without_columns() -> None:
    assert array_of([[], []], pa.list_(pa.int64())).shape == (2, 0)


def test_lists_of_different_lengths_are_objects_in_order() -> None:
    array = array_of([[1, 2], [], None, [3]], pa.list_(pa.int32()))
    assert array.dtype == object
    assert [None if each is None else each.tolist() for each in array] == [
        [1, 2],
        [],
        None,
        [3],
    ]
    assert array[0].dtype == np.int32


def test_null_elements_follow_the_rule_of_their_type() -> None:
    array = array_of([[1.0, None], [2.0, 3.0]], pa.list_(pa.float64()))
    assert array.shape == (2, 2)
    assert np.isnan(array[0, 1])
    with pytest.raises(DataError, match=r"'tags' .ARRAY of int32.*ARRAY<DOUBLE>"):
        column_to_numpy("tags", pa.array([[1, None]], pa.list_(pa.int32())))


def test_lists_of_booleans_are_a_matrix() -> None:
    array = array_of([[True, False], [False, True]], pa.list_(pa.bool_()))
    assert array.dtype == np.bool_
    assert array.tolist() == [[True, False], [False, True]]


def test_a_batch_keeps_the_order_of_its_columns() -> None:
    batch = pa.record_batch({"b": [1], "a": ["x"]})
    assert list(to_numpy(batch)) == ["b", "a"]


def test_the_mask_is_there_with_and_without_null() -> None:
    for values in ([1, None, 3], [1, 2, 3]):
        batch = pa.record_batch(
            {"i": pa.array(values, pa.int16()), "f": [1.0, None, 2.0], "s": ["a", None, "b"]}
        )
        arrays = to_numpy(batch, nulls="mask")
        assert list(arrays) == ["i", "i__valid", "f", "s"]
        assert arrays["i"].dtype == np.int16
        assert arrays["i"].tolist() == [value or 0 for value in values]
        assert arrays["i__valid"].tolist() == [value is not None for value in values]


def test_the_mask_of_booleans_fills_with_false() -> None:
    arrays = to_numpy(pa.record_batch({"b": [True, None]}), nulls="mask")
    assert arrays["b"].tolist() == [True, False]
    assert arrays["b__valid"].tolist() == [True, False]


def test_a_column_that_is_not_null_has_no_mask() -> None:
    schema = pa.schema([pa.field("i", pa.int64(), nullable=False)])
    assert list(to_numpy(pa.record_batch([[1]], schema=schema), nulls="mask")) == ["i"]


def test_a_column_with_the_name_of_a_mask_is_an_error() -> None:
    batch = pa.record_batch({"i": [1, None], "i__valid": [1.0, 2.0]})
    with pytest.raises(DataError, match=r"adds the array 'i__valid'.*rename"):
        to_numpy(batch, nulls="mask")
    assert list(to_numpy(batch.slice(0, 1))) == ["i", "i__valid"]
