"""How large libraries are imported."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_collections"]


@contextmanager
def without_collections() -> Iterator[None]:
    """Import large libraries inside: nothing is searched for garbage meanwhile.

    An import makes objects that stay, a million of them in TensorFlow's; looking at them again
    and again takes a sixth of its time, and of PyTorch's. Leaves the collector off where it was
    off. For one thread at a time.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
