"""Rows made to fit the output: what is lossless is cast, the rest is refused by name."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import DataError
from headrace.exchange import conform, conform_column

INT_LIST = pa.list_(pa.int32())


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        (pa.array([1, None], pa.int64()), pa.int8(), [1, None]),
        (pa.array([1.0, 2.0]), pa.int32(), [1, 2]),
        (pa.array([0.1]), pa.float32(), [np.float32(0.1)]),
        (pa.array(np.array([1.5], np.float16)), pa.float32(), [1.5]),
        (pa.array([3], pa.int64()), pa.decimal128(10, 2), [Decimal("3.00")]),
        (pa.array([1.25]), pa.decimal128(10, 2), [Decimal("1.25")]),
        (pa.array(["a", "b"]).dictionary_encode(), pa.utf8(), ["a", "b"]),
        (pa.array(["é"], pa.large_utf8()), pa.utf8(), ["é"]),
        (pa.array([b"x"]), pa.utf8(), ["x"]),
        (pa.array([[1, 2], None]), INT_LIST, [[1, 2], None]),
        (
            pa.FixedSizeListArray.from_arrays(pa.array([1, 2, 3, 4]), 2),
            INT_LIST,
            [[1, 2], [3, 4]],
        ),
        (pa.nulls(2), pa.utf8(), [None, None]),
        (pa.nulls(1), INT_LIST, [None]),
        (pa.chunked_array([[1], [2]]), pa.int16(), [1, 2]),
    ],
)
def test_what_loses_nothing_is_cast(
    values: pa.Array, target: pa.DataType, expected: list[Any]
) -> None:
    got = conform_column(values, pa.field("c", target))
    assert got.type == target
    assert got.to_pylist() == expected


@pytest.mark.parametrize(
    ("values", "target", "told"),
    [
        (pa.array([300]), pa.int8(), "300"),
        (pa.array([1.5]), pa.int32(), "1.5"),
        (pa.array(["1"]), pa.int32(), "string.*int32"),
        (pa.array([1]), pa.utf8(), "int64.*string"),
        (pa.array([True]), pa.int32(), "bool.*int32"),
        (pa.array([1]), pa.bool_(), "int64.*bool"),
        (pa.array([12345]), pa.decimal128(4, 1), "decimal128"),
        (pa.array([b"\xff"]), pa.utf8(), "UTF8"),
        (pa.array([1]), INT_LIST, "list"),
        (pa.array([["a"]]), INT_LIST, "list<item: string>"),
        (pa.array([1]), pa.timestamp("ms"), "timestamp"),
        (pa.array([1], pa.timestamp("ns")), pa.timestamp("ms"), "lose data"),
        (pa.array([{"b": 1}]), pa.struct([("a", pa.int32())]), "struct"),
    ],
)
def test_what_would_lose_something_is_refused_with_column_and_types(
    values: pa.Array, target: pa.DataType, told: str
) -> None:
    with pytest.raises(DataError, match=f"'price'.*{told}"):
        conform_column(values, pa.field("price", target))


def test_a_null_in_a_column_that_is_not_null_is_refused() -> None:
    field = pa.field("id", pa.int64(), nullable=False)
    with pytest.raises(DataError, match="'id' is NOT NULL, but 1"):
        conform_column(pa.array([1, None]), field)
    assert conform_column(pa.array([1, 2]), field).to_pylist() == [1, 2]


def test_columns_are_put_in_order_and_extra_ones_are_named() -> None:
    schema = pa.schema([("a", pa.int64()), ("b", pa.utf8())])
    batch = pa.record_batch({"b": ["x"], "a": [1]})
    assert conform(batch, schema).equals(pa.record_batch([[1], ["x"]], schema=schema))
    with pytest.raises(DataError, match=r"missing: b; not in the output: c"):
        conform(pa.record_batch({"a": [1], "c": [1]}), schema)
    with pytest.raises(DataError, match="twice: a"):
        conform(pa.RecordBatch.from_arrays([pa.array([1])] * 3, names=["a", "a", "b"]), schema)


def test_a_batch_that_fits_is_returned_as_it_is() -> None:
    batch = pa.record_batch({"a": [1]})
    assert conform(batch, batch.schema) is batch
