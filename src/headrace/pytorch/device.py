"""Which device a worker computes on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from headrace._environ import LEASED_GPU, environment_value
from headrace.errors import ConfigError

__all__ = ["choose_device"]


def choose_device(hosts: Sequence[str], index: int, *, is_required: bool) -> torch.device:
    """Return the GPU of this worker, else the CPU.

    GPUs are assigned when ``CUDA_VISIBLE_DEVICES`` names them (for example in the role's
    `environment`); a GPU that merely exists is taken only if `is_required`. The workers of one
    host take one each, in the order of their index, unless its node has leased one for it.

    Args:
        hosts: Host of each worker of the role, in the order of their index.
        index: This worker's place in `hosts`.
        is_required: Whether the CPU will not do.

    Raises:
        ConfigError: There are fewer GPUs than workers on this host, or none although required.
    """
    assigned = environment_value("CUDA_VISIBLE_DEVICES")
    is_assigned = bool(assigned) and assigned != "-1"
    if not torch.cuda.is_available() or not (is_assigned or is_required):
        if is_required:
            msg = "device='cuda', but torch finds no GPU here; use device='auto' or 'cpu'"
            raise ConfigError(msg)
        return torch.device("cpu")
    if environment_value(LEASED_GPU) is not None:
        return torch.device("cuda", 0)  # it sees no other
    place = list(hosts[:index]).count(hosts[index]) if index < len(hosts) else 0
    if place >= torch.cuda.device_count():
        msg = (
            f"Worker {index} is number {place + 1} on its host, where torch sees "
            f"{torch.cuda.device_count()} GPU(s): each worker needs one of its own. Run fewer "
            "workers on a host, or use device='cpu'"
        )
        raise ConfigError(msg)
    return torch.device("cuda", place)
