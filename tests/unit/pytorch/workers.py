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
            first = self._given[0]
            self._total = torch.stack(self._given).sum(dim=0, dtype=first.dtype)
            self._given.clear()
            self.lengths.append(len(self._total))


class ThreadPeers:
    """One thread's part in a `SharedSum`."""

    def __init__(self, shared: SharedSum, rank: int) -> None:
        self.rank = rank
        self.world_size = shared.world_size
        self._shared = shared

    def add(self, vector: torch.Tensor) -> None:
        self._shared.add(vector)

    def spread(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            if self.rank != 0:
                tensor.zero_()
            self._shared.add(tensor)


def run_workers(workers: Sequence[Callable[[], _T]]) -> list[_T]:
    """Run each in a thread of its own; the first error is raised."""
    with ThreadPoolExecutor(len(workers)) as pool:
        return [each.result() for each in [pool.submit(worker) for worker in workers]]
