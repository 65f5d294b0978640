"""States as bytes: every value comes back, and large memory is copied once and no more."""

from __future__ import annotations

import collections
import gc
import io
import math
import sys
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ProtocolError
from headrace.role.state_format import decode_state, encode_state


def there_and_back(value: object) -> Any:
    encoded = encode_state(value)
    memory = memoryview(bytearray(b"\xff" * encoded.size_bytes))
    encoded.write_to(memory)
    return decode_state(memory)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(VALUES)
def test_values_come_back(value: object) -> None:
    assert there_and_back(value) == value


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int16).reshape(3, 4),
        np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        np.arange(20.0)[::3],
        np.array(2.5),
        np.array([], np.float32),
        np.array(["2014-01-01"], "datetime64[s]"),
        np.array([{"a": 1}, None], object),
        np.array([("x", 1)], [("name", "U3"), ("n", "i4")]),
    ],
)
def test_arrays_come_back_with_dtype_and_order(array: Any) -> None:
    got = there_and_back({"array": array})["array"]
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    assert got.flags.f_contiguous == array.flags.f_contiguous or not array.flags.contiguous
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize(
    "dtype",
    [
        torch.bfloat16,
        torch.float16,
        torch.float32,
        torch.float64,
        torch.complex64,
        torch.int8,
        torch.uint8,
        torch.int64,
        torch.bool,
        torch.float8_e4m3fn,
    ],
)
def test_tensors_of_every_dtype_come_back_bit_for_bit(dtype: torch.dtype) -> None:
    noise = torch.randint(0, 2, (96,), dtype=torch.uint8)
    tensor = noise.view(dtype) if dtype != torch.bool else noise.bool()
    got = there_and_back(tensor)
    assert got.dtype == dtype
    assert torch.equal(got.view(torch.uint8), tensor.view(torch.uint8))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.tensor(3.5),
        lambda: torch.empty(0, 4),
        lambda: torch.arange(12.0).reshape(3, 4).t(),
        lambda: torch.arange(12.0)[3:9:2],
        lambda: torch.ones(1).expand(5),
        lambda: torch.arange(12.0).to_sparse(),
        lambda: torch.tensor([1 + 2j]).conj(),
        lambda: torch.ones(2, requires_grad=True),
        lambda: torch.nn.Parameter(torch.ones(2), requires_grad=False),
    ],
)
def test_any_tensor_comes_back_as_it_was(make: Callable[[], torch.Tensor]) -> None:
    tensor = make()
    got = there_and_back([tensor])[0]
    assert type(got) is type(tensor)
    assert (got.dtype, got.shape, got.layout) == (tensor.dtype, tensor.shape, tensor.layout)
    assert got.requires_grad == tensor.requires_grad
    if tensor.layout is torch.strided:
        assert got.stride() == tensor.stride()
    assert torch.equal(got.to_dense(), tensor.to_dense())


def test_tensors_that_share_memory_share_it_afterwards() -> None:
    whole = torch.zeros(10)
    got = there_and_back({"whole": whole, "part": whole[2:4], "again": whole})
    got["part"].fill_(7.0)
    assert got["whole"].tolist() == [0, 0, 7, 7, 0, 0, 0, 0, 0, 0]
    assert got["again"] is got["whole"]
    assert encode_state([torch.zeros(100_000)] * 3).size_bytes < 500_000


def test_what_comes_out_lies_in_the_memory_and_can_be_changed() -> None:
    encoded = encode_state({"array": np.zeros(1000), "tensor": torch.zeros(1000)})
    memory = memoryview(bytearray(encoded.size_bytes))
    encoded.write_to(memory)
    before = bytes(memory)
    got = decode_state(memory)
    for value in (got["array"], got["tensor"]):
        value += 1.0
    assert bytes(memory) != before
    start = np.frombuffer(memory, np.uint8).ctypes.data
    assert (got["tensor"].data_ptr() - start) % 64 == 0
    assert (got["array"].ctypes.data - start) % 64 == 0


def test_a_whole_module_and_its_optimizer_come_back() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    got = there_and_back(state)
    assert type(got["model"]) is type(state["model"]) is collections.OrderedDict
    for name, value in state["model"].items():
        assert torch.equal(got["model"][name], value)
    assert got["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    for index, slots in state["optimizer"]["state"].items():
        for name, value in slots.items():
            assert torch.equal(got["optimizer"]["state"][index][name], value)


def test_classes_that_cannot_be_imported_travel_with_their_values() -> None:
    class Local:
        def __init__(self) -> None:
            self.weights = np.arange(3)

    got = there_and_back(Local())
    assert type(got).__name__ == "Local"
    assert got.weights.tolist() == [0, 1, 2]


def test_what_cannot_be_pickled_is_an_error() -> None:
    with pytest.raises(Exception, match=r"pickle"):
        encode_state({"file": io.FileIO(0, closefd=False)})


@pytest.mark.parametrize("noise", [b"", b"x" * 10, b"x" * 100, b"HRSTATE\x02" + bytes(16)])
def test_other_bytes_are_refused(noise: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_state(memoryview(noise))


@pytest.mark.parametrize("shape", [(3, 4), (), (0, 2)])
@pytest.mark.parametrize("kind", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_arrays_of_types_of_others_come_back_bit_for_bit(
    kind: Any, shape: tuple[int, ...]
) -> None:
    array = np.linspace(-2, 2, math.prod(shape)).reshape(shape).astype(kind)
    got = there_and_back({"array": array})["array"]
    assert (got.dtype, got.shape, got.tobytes()) == (array.dtype, shape, array.tobytes())
    many = np.zeros(100_000, kind)
    assert [each.size_bytes for each in encode_state(many)._buffers] == [many.nbytes]


def test_nothing_refers_to_a_state_that_was_written() -> None:
    """Not even until the collector comes: TensorFlow would move its variables meanwhile."""
    array = np.zeros(1_000)
    gc.disable()
    try:
        there_and_back({"array": array, "tensor": torch.zeros(3), "lambda": lambda: None})
        assert sys.getrefcount(array) == 2  # the name, and the argument
    finally:
        gc.enable()
