"""Results of a model that its next call cannot overwrite."""

from __future__ import annotations

import copy
from collections.abc import Mapping, MutableMapping
from typing import Any

import pyarrow as pa

__all__ = ["in_own_memory"]


def in_own_memory(returned: Any) -> Any:
    """Return what a model returned with its arrays and tensors copied.

    A model may return the same memory again and again: an output that was made ahead
    (``numpy.multiply(a, b, out=scores)``, a CUDA graph), a buffer of a module, its input. The
    scores are read when the next call runs.

    Args:
        returned: What `OutputPlan` takes, or what only a `postprocess` knows: mappings, tuples
            and lists are searched, anything else stays as it is.
    """
    if isinstance(returned, tuple):
        parts = map(in_own_memory, returned)
        has_names = hasattr(returned, "_fields")
        return type(returned)(*parts) if has_names else tuple(parts)
    if isinstance(returned, list):
        return [in_own_memory(each) if hasattr(each, "shape") else each for each in returned]
    if isinstance(returned, MutableMapping):
        copied = copy.copy(returned)  # keeps its class, which a `postprocess` may count on
        for name, value in returned.items():
            copied[name] = in_own_memory(value)
        return copied
    if isinstance(returned, Mapping):
        return {name: in_own_memory(value) for name, value in returned.items()}
    if isinstance(returned, pa.ChunkedArray):
        returned = returned.combine_chunks()
    if isinstance(returned, pa.Array):
        return pa.concat_arrays([returned, returned[:0]])  # of one array it would be no copy
    if hasattr(returned, "detach"):
        return returned.detach().clone()
    if hasattr(returned, "__array__") and hasattr(returned, "copy"):
        return returned.copy()
    return returned
