"""What a column becomes, and that no copy is made where none is needed."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
import torch

from headrace.errors import DataError
from headrace.pytorch.tensors import Column, TensorConverter
from headrace.role import NullRule


def batch(**columns: pa.Array) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


def to_tensors(batch: pa.RecordBatch, nulls: NullRule = "error") -> dict[str, Column]:
    return TensorConverter(batch.schema, nulls)(batch)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (pa.int8(), torch.int8),
        (pa.int16(), torch.int16),
        (pa.int32(), torch.int32),
        (pa.int64(), torch.int64),
        (pa.float32(), torch.float32),
        (pa.float64(), torch.float64),
    ],
)
def test_numbers_share_memory_also_in_a_slice(kind: pa.DataType, dtype: torch.dtype) -> None:
    column = pa.array([1, 2, 3, 4, 5], kind)
    tensor = to_tensors(batch(x=column.slice(2, 2)))["x"]
    assert tensor.dtype == dtype
    assert tensor.tolist() == [3, 4]
    width = kind.bit_width // 8
    assert tensor.data_ptr() == column.buffers()[1].address + 2 * width


def test_special_floats_keep_their_bits() -> None:
    values = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45], np.float32)
    tensor = to_tensors(batch(x=pa.array(values)))["x"]
    assert tensor.numpy().tobytes() == values.tobytes()


def test_tensors_keep_the_memory_alive() -> None:
    tensor = to_tensors(batch(x=pa.array(np.arange(1000))))["x"]
    assert tensor.sum().item() == 499_500


def test_booleans_are_unpacked() -> None:
    column = pa.array([True, False, False, True, True]).slice(1, 4)
    tensor = to_tensors(batch(x=column))["x"]
    assert tensor.dtype == torch.bool
    assert tensor.tolist() == [False, False, True, True]


def test_equal_length_arrays_become_a_matrix_without_a_copy() -> None:
    column = pa.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], pa.list_(pa.float32()))
    tensor = to_tensors(batch(x=column.slice(1, 2)))["x"]
    assert tensor.tolist() == [[3.0, 4.0], [5.0, 6.0]]
    assert tensor.data_ptr() == column.values.buffers()[1].address + 2 * 4


def test_arrays_of_booleans_become_a_matrix() -> None:
    tensor = to_tensors(batch(x=pa.array([[True, False], [False, False]])))["x"]
    assert tensor.dtype == torch.bool
    assert tensor.tolist() == [[True, False], [False, False]]


def test_arrays_of_different_lengths_stay_arrays() -> None:
    values = to_tensors(batch(x=pa.array([[1, 2], [3], []])))["x"]
    assert [list(value) for value in values] == [[1, 2], [3], []]


def test_null_becomes_nan_in_floating_point_only() -> None:
    assert to_tensors(batch(x=pa.array([1.5, None])))["x"].isnan().tolist() == [False, True]
    with pytest.raises(DataError, match="Column 'n'"):
        to_tensors(batch(n=pa.array([1, None])))


def test_a_mask_comes_with_every_nullable_integer() -> None:
    columns = to_tensors(batch(n=pa.array([7, None]), x=pa.array([1.0, 2.0])), nulls="mask")
    assert list(columns) == ["n", "n__valid", "x"]
    assert columns["n"].tolist() == [7, 0]
    assert columns["n__valid"].tolist() == [True, False]
    assert columns["n__valid"].dtype == torch.bool


def test_what_torch_has_no_type_for_stays_numpy() -> None:
    day = datetime.date(2026, 1, 2)
    columns = to_tensors(
        batch(s=pa.array(["a", None]), d=pa.array([day] * 2), m=pa.array([Decimal("1.5")] * 2))
    )
    assert columns["s"].tolist() == ["a", None]
    assert columns["d"].tolist() == [day, day]
    assert columns["m"].tolist() == [Decimal("1.5")] * 2


def test_no_rows_make_empty_tensors() -> None:
    columns = to_tensors(batch(x=pa.array([], pa.int64()), b=pa.array([], pa.bool_())))
    assert (columns["x"].shape, columns["b"].shape) == ((0,), (0,))
