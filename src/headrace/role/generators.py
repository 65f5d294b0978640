"""The random number generators that a program has without making any."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["generator_states", "restore_generators", "unmoved_generators"]


def generator_states() -> dict[str, Any]:
    """Return the states of Python's, NumPy's (the global one) and, where used, torch's.

    Torch's are that of the CPU, and those of all GPUs once the process has used one.
    """
    states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}
    torch: Any = sys.modules.get("torch")
    if torch is not None:
        states["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def restore_generators(states: dict[str, Any]) -> None:
    """Set the generators to what `generator_states` returned, perhaps elsewhere."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    if "torch" in states:
        torch: Any = importlib.import_module("torch")  # the entry may import it only later
        torch.set_rng_state(states["torch"])
        for index, state in enumerate(states.get("cuda", ())):
            if index < torch.cuda.device_count():
                torch.cuda.set_rng_state(state, index)


@contextmanager
def unmoved_generators() -> Iterator[None]:
    """Give the generators back what they were before the block, however it ends.

    For what a program does beside its training, so that this goes on as without it.
    """
    states = generator_states()
    try:
        yield
    finally:
        restore_generators(states)
