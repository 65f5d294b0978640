"""Sums through shared memory, by threads; `test_data_parallel.py` does it with processes."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

from headrace.pytorch import shared
from headrace.pytorch.shared import HostAdder
from tests.unit.pytorch.workers import SharedSum, ThreadPeers, run_workers

CPU = torch.device("cpu")


def add_up(workers: int, elements: int, rounds: int = 3) -> list[tuple[bool, list[float]]]:
    """Each worker adds (rank + 1) * round * position; return what the last round gave."""
    peers = SharedSum(workers)

    def worker(rank: int) -> tuple[bool, list[float]]:
        adder = HostAdder(ThreadPeers(peers, rank))
        vector = adder.zeros(elements, torch.float32, CPU)
        assert vector.tolist() == [0.0] * elements
        for number in range(1, rounds + 1):
            vector.copy_(torch.arange(elements) * (rank + 1) * number)
            adder.add(vector)
        return adder.is_shared, vector.tolist()

    def with_rank(rank: int) -> Callable[[], tuple[bool, list[float]]]:
        return lambda: worker(rank)

    return run_workers([with_rank(rank) for rank in range(workers)])


@pytest.mark.parametrize("workers", [2, 3, 5])
@pytest.mark.parametrize("elements", [1, 4, 10_007])
def test_every_worker_gets_the_sum(workers: int, elements: int) -> None:
    total = 3 * workers * (workers + 1) / 2
    expected = [position * total for position in range(elements)]
    assert add_up(workers, elements) == [(True, expected)] * workers


def test_another_vector_goes_through_the_peers() -> None:
    peers = SharedSum(2)

    def worker(rank: int) -> list[float]:
        adder = HostAdder(ThreadPeers(peers, rank))
        adder.zeros(8, torch.float32, CPU)
        small = torch.tensor([float(rank), 1.0])
        adder.add(small)
        return small.tolist()

    assert run_workers([lambda: worker(0), lambda: worker(1)]) == [[1.0, 2.0]] * 2


def test_where_one_cannot_map_the_memory_all_go_through_the_peers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mapped: list[object] = []
    map_memory = shared._map

    def map_once(card: torch.Tensor, size_bytes: int) -> object:
        mapped.append(card)
        return None if len(mapped) == 2 else map_memory(card, size_bytes)

    monkeypatch.setattr(shared, "_map", map_once)
    assert add_up(2, 3) == [(False, [0.0, 9.0, 18.0])] * 2


def test_without_memory_all_go_through_the_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(os, "posix_fallocate", fail)
    assert add_up(2, 3) == [(False, [0.0, 9.0, 18.0])] * 2


def test_memory_of_another_process_is_not_taken_for_ours() -> None:
    descriptor, card = shared._create(8192)
    assert descriptor is not None
    try:
        assert shared._map(card, 8192) is not None
        card[0] += 1  # another nonce
        assert shared._map(card, 8192) is None
    finally:
        os.close(descriptor)
    assert shared._map(card, 8192) is None  # no such descriptor any more
