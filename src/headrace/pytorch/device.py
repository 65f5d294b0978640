"""Which device a worker computes on, and with how many threads."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from headrace._environ import environment_value

__all__ = ["choose_device", "choose_threads"]


def choose_device() -> torch.device:
    """Return the GPU that this process was assigned, else the CPU.

    A GPU is assigned when ``CUDA_VISIBLE_DEVICES`` names it (the node's GPU lease, or the
    role's `environment`). A GPU that merely exists is not taken: several workers would share
    it.
    """
    assigned = environment_value("CUDA_VISIBLE_DEVICES")
    if assigned and assigned != "-1" and torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("cpu")


def choose_threads(hosts: Sequence[str], index: int) -> int | None:
    """Return how many threads torch should use, or None to leave it to OMP_NUM_THREADS.

    The cores that this process may use are divided among the workers on its host.

    Args:
        hosts: Host of each worker of the role, in the order of their index.
        index: This worker's place in `hosts`.
    """
    if environment_value("OMP_NUM_THREADS") or environment_value("MKL_NUM_THREADS"):
        return None
    beside = max(1, list(hosts).count(hosts[index]) if index < len(hosts) else 1)
    return max(1, len(os.sched_getaffinity(0)) // beside)
