"""Bytes of the first process of a role, to all of them."""

from __future__ import annotations

import numpy as np

from headrace.role.star import Star

__all__ = ["spread_bytes"]


def spread_bytes(star: Star, memory: memoryview) -> memoryview:
    """Return the `memory` that rank 0 gives: there itself, elsewhere a copy.

    Collective: every process of the group calls it; what others than rank 0 give is not looked
    at. Raises as `Star.spread`.
    """
    size = np.array([memory.nbytes], np.int64)
    star.spread(size)
    is_first = star.rank == 0
    content = np.frombuffer(memory, np.uint8) if is_first else np.empty(size[0], np.uint8)
    star.spread(content)
    return memory if is_first else content.data
