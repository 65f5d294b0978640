"""Threads that train in lockstep without processes: a sum behind a barrier."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

_T = TypeVar("_T")
_LIMIT_S = 10.0


class SharedSum:
    """Adds the vectors of threads."""

    def __init__(self, world_size: int) -> None:
        self.world_size = world_size
        self.lengths: list[int] = []
        self._barrier = threading.Barrier(world_size, action=self._sum)
        self._lock = threading.Lock()
        self._given: list[torch.Tensor] = []
        self._total = torch.zeros(0)

    def add(self, vector: torch.Tensor) -> None:
        with self._lock:
            self._given.append(vector.clone())
        self._barrier.wait(_LIMIT_S)
        vector.copy_(self._total)
        self._barrier.wait(_LIMIT_S)

    def _sum(self) -> None:
        if self._given:
            self._total = torch.stack(self._given).sum(dim=0)
            self._given.clear()
            self.lengths.append(len(self._total))


def run_workers(workers: Sequence[Callable[[], _T]]) -> list[_T]:
    """Run each in a thread of its own; the first error is raised."""
    with ThreadPoolExecutor(len(workers)) as pool:
        return [each.result() for each in [pool.submit(worker) for worker in workers]]
