"""Objects to the bytes of a state file, and back.

A file has a header, a table, a skeleton and buffers: the skeleton is a pickle (protocol 5) of
the objects without the memory of their arrays and tensors, and each such memory is a buffer, as
it is, at a multiple of 64 bytes. So encoding copies every large thing once, into the file, and
decoding copies none: what comes out lies in the memory that it came from.

Tensors keep their dtype, strides and device; those that share memory share it afterwards, and
come back on the CPU. Torch itself is not imported to encode: there are no tensors without it.

Source: docs/exchange.md, section 5; PEP 574.
"""

from __future__ import annotations

import importlib
import io
import pickle
import struct
import sys
from itertools import accumulate
from typing import Any

import cloudpickle
import numpy as np

from headrace.errors import ProtocolError

__all__ = ["EncodedState", "decode_state", "encode_state"]

_ALIGNMENT = 64
_MAGIC = b"HRSTATE\x01"
_HEADER = struct.Struct("<8sQQ")  # magic, bytes of the skeleton, number of buffers
_BUFFER = struct.Struct("<QQ")  # offset, bytes
_BY_OTHERS = 2  # `dtype.isbuiltin` of types that are registered with NumPy


class EncodedState:
    """A state that is ready to be written; refers to the memory of the objects until then.

    Attributes:
        size_bytes: Room that it needs, at least 1.
    """

    def __init__(self, skeleton: bytes, buffers: list[_Buffer]) -> None:
        self._skeleton = skeleton
        self._buffers = buffers
        head_bytes = _HEADER.size + _BUFFER.size * len(buffers) + len(skeleton)
        rooms = [_aligned(buffer.size_bytes) for buffer in buffers]
        *self._offsets, self.size_bytes = accumulate(rooms, initial=_aligned(head_bytes))

    def write_to(self, memory: memoryview) -> None:
        """Copy everything into `memory`, which has `size_bytes`. Releases the GIL meanwhile."""
        table = b"".join(
            _BUFFER.pack(offset, buffer.size_bytes)
            for offset, buffer in zip(self._offsets, self._buffers, strict=True)
        )
        header = _HEADER.pack(_MAGIC, len(self._skeleton), len(self._buffers))
        head = header + table + self._skeleton
        memory[: len(head)] = head
        target = np.frombuffer(memory, np.uint8)
        for offset, buffer in zip(self._offsets, self._buffers, strict=True):
            buffer.copy_to(target[offset : offset + buffer.size_bytes])


def encode_state(value: object) -> EncodedState:
    """Take `value` apart; it must not change until the result was written.

    Raises:
        Exception: What pickling raises: a part of it cannot be pickled.
    """
    skeleton = io.BytesIO()
    taken = _TakenOut()
    _Pickler(skeleton, taken).dump(value)
    return EncodedState(skeleton.getvalue(), taken.buffers)


def decode_state(memory: memoryview) -> Any:
    """Return what was encoded into `memory`, which the arrays and tensors in it refer to.

    Raises:
        ProtocolError: The bytes are no state.
        Exception: What unpickling raises: a module is missing, for example.
    """
    try:
        magic, skeleton_bytes, count = _HEADER.unpack_from(memory)
    except struct.error as exc:
        msg = f"A state has {len(memory)} bytes, fewer than its header"
        raise ProtocolError(msg) from exc
    if magic != _MAGIC:
        msg = f"A state begins with {magic!r}: this version of Headrace reads {_MAGIC!r}"
        raise ProtocolError(msg)
    start = _HEADER.size + _BUFFER.size * count
    table = memory[_HEADER.size : start]
    skeleton = memory[start : start + skeleton_bytes]
    buffers = [memory[at : at + size] for at, size in _BUFFER.iter_unpack(table)]
    return pickle.loads(skeleton, buffers=buffers)  # noqa: S301 - this job's own state


class _Buffer:
    """Memory of the process."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self.size_bytes = view.nbytes

    def copy_to(self, target: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        target[:] = np.frombuffer(self._view, np.uint8)


class _DeviceBuffer(_Buffer):
    """Memory of a GPU."""

    def __init__(self, view: memoryview, storage: Any) -> None:
        super().__init__(view)
        self._storage = storage

    def copy_to(self, target: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        sys.modules["torch"].from_numpy(target).copy_(_bytes_of(self._storage))


class _Storage:
    """The memory that tensors share; one of these for all of them, so that it is kept once."""

    def __init__(self, storage: Any) -> None:
        self.storage = storage


class _TakenOut:
    """What a pickler has taken out of the objects.

    Apart from the pickler, which would else be part of a cycle, and keep everything that it saw
    until the collector comes: variables of TensorFlow's would move to other memory meanwhile.

    Attributes:
        buffers: In the order in which they are taken back.
        on_device: Address of a placeholder -> the storage that it stands for.
    """

    def __init__(self) -> None:
        self.buffers: list[_Buffer] = []
        self.on_device: dict[int, Any] = {}

    def take(self, buffer: pickle.PickleBuffer) -> None:
        view = buffer.raw()
        address = np.frombuffer(view, np.uint8).ctypes.data if view.nbytes else 0
        storage = self.on_device.get(address)
        self.buffers.append(_Buffer(view) if storage is None else _DeviceBuffer(view, storage))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc] # it has no types
    """Takes memory out; classes and functions that cannot be imported travel by value."""

    def __init__(self, file: io.BytesIO, taken: _TakenOut) -> None:
        super().__init__(file, protocol=5, buffer_callback=taken.take)
        self._torch = sys.modules.get("torch")
        self._storages: dict[int, _Storage] = {}
        self._on_device = taken.on_device

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, _Storage):
            return _rebuild_storage, (pickle.PickleBuffer(self._view_of(obj.storage)),)
        if _is_of_foreign_numbers(obj):
            # NumPy knows no buffers of such, and would put them into the skeleton.
            memory = pickle.PickleBuffer(obj.reshape(-1).view(np.uint8))
            return _rebuild_array, (memory, obj.dtype, obj.shape)
        if self._torch is not None and _is_plain_tensor(self._torch, obj):
            storage = obj.untyped_storage()
            kept = self._storages.setdefault(storage._cdata, _Storage(storage))  # noqa: SLF001
            return _rebuild_tensor, (
                kept,
                str(obj.dtype).removeprefix("torch."),
                obj.storage_offset(),
                tuple(obj.size()),
                obj.stride(),
                obj.requires_grad and obj.is_leaf,
                isinstance(obj, self._torch.nn.Parameter),
            )
        return super().reducer_override(obj)

    def _view_of(self, storage: Any) -> Any:
        if storage.device.type == "cpu":
            return _bytes_of(storage).numpy()
        placeholder = np.empty(storage.nbytes(), np.uint8)  # its pages are never touched
        self._on_device[placeholder.ctypes.data] = storage
        return placeholder


def _is_of_foreign_numbers(obj: Any) -> bool:
    """Whether `obj` is an array of a type that another package has made: bfloat16, float8."""
    return (
        type(obj) is np.ndarray and obj.dtype.isbuiltin == _BY_OTHERS and obj.flags.c_contiguous
    )


def _is_plain_tensor(torch: Any, obj: Any) -> bool:
    """Whether `obj` is no more than a view of a storage; others pickle in their own way."""
    return (
        type(obj) in (torch.Tensor, torch.nn.Parameter)
        and obj.layout is torch.strided
        and obj.device.type in ("cpu", "cuda")
        and not (obj.is_quantized or obj.is_conj() or obj.is_neg() or vars(obj))
    )


def _bytes_of(storage: Any) -> Any:
    torch: Any = sys.modules["torch"]
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


def _rebuild_array(
    memory: Any, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> np.ndarray[Any, Any]:
    return np.ndarray(shape, dtype, buffer=memory)


def _rebuild_storage(memory: Any) -> Any:
    torch: Any = importlib.import_module("torch")  # the entry may import it only later
    with memoryview(memory) as view:
        if not view.nbytes:
            return torch.UntypedStorage(0)
    return torch.frombuffer(memory, dtype=torch.uint8).untyped_storage()


def _rebuild_tensor(
    kept: Any,
    dtype: str,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    requires_grad: bool,
    is_parameter: bool,
) -> Any:
    torch: Any = importlib.import_module("torch")
    tensor = torch.empty(0, dtype=getattr(torch, dtype)).set_(kept, offset, size, stride)
    if is_parameter:
        return torch.nn.Parameter(tensor, requires_grad=requires_grad)
    return tensor.requires_grad_(requires_grad)


def _aligned(size_bytes: int) -> int:
    return -(-size_bytes // _ALIGNMENT) * _ALIGNMENT
