"""The random number generators that a program has without making any."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

__all__ = ["Generators"]


class Generators:
    """Python's, NumPy's (the global one) and, where used, torch's.

    Torch's are that of the CPU, and those of all GPUs once the process has used one. Framework
    layers add those of a framework that has to be asked in other ways.

    Thread model: one thread at a time, any.
    """

    def states(self) -> dict[str, Any]:
        """Return their states."""
        states: dict[str, Any] = {"python": random.getstate(), "numpy": np.random.get_state()}
        torch: Any = sys.modules.get("torch")
        if torch is not None:
            states["torch"] = torch.get_rng_state()
            if torch.cuda.is_available() and torch.cuda.is_initialized():
                states["cuda"] = torch.cuda.get_rng_state_all()
        return states

    def restore(self, states: dict[str, Any]) -> None:
        """Set them to what `states` returned, perhaps in another process."""
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        if "torch" in states:
            torch: Any = importlib.import_module("torch")  # the entry may import it only later
            torch.set_rng_state(states["torch"])
            for index, state in enumerate(states.get("cuda", ())):
                if index < torch.cuda.device_count():
                    torch.cuda.set_rng_state(state, index)

    @contextmanager
    def unmoved(self) -> Iterator[None]:
        """Give them back what they were before the block, however it ends.

        For what a program does beside its training, so that this goes on as without it.
        """
        states = self.states()
        try:
            yield
        finally:
            self.restore(states)
