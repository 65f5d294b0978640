"""With how many threads a process computes."""

from __future__ import annotations

import os
from collections.abc import Sequence

from headrace._environ import environment_value

__all__ = ["choose_threads"]


def choose_threads(hosts: Sequence[str], index: int) -> int | None:
    """Return how many threads to compute with, or None to leave it to OMP_NUM_THREADS.

    The cores that this process may use are divided among the processes on its host.

    Args:
        hosts: Host of each process that computes, this one included.
        index: This process' place in `hosts`.

    Returns:
        At least 1; None where the environment has OMP_NUM_THREADS or MKL_NUM_THREADS, which
        say what the user wants.
    """
    if environment_value("OMP_NUM_THREADS") or environment_value("MKL_NUM_THREADS"):
        return None
    beside = max(1, list(hosts).count(hosts[index]) if index < len(hosts) else 1)
    return max(1, len(os.sched_getaffinity(0)) // beside)
