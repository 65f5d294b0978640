"""From what scores, and how, to what the workers of a job run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias

from headrace._environ import NEEDS_GPU
from headrace.config import ExchangeConfig, GpuUse, MirrorConfig, RoleConfig
from headrace.errors import ConfigError
from headrace.inference.entry import ScoringEntry
from headrace.inference.model import is_uri

__all__ = ["KEEP_MEMORY", "Device", "scoring_role"]

Device: TypeAlias = Literal["auto", "cpu", "cuda"]

_GPU_USE: dict[str, GpuUse] = {"auto": "auto", "cpu": "none", "cuda": "required"}
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",  # the thresholds are those of the first arena alone
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
"""Environment for a process that makes and frees the same large arrays again and again.

glibc gives them back to the kernel each time and takes them anew, page by page, unless it is
told to keep so many bytes. Source: mallopt(3).
"""
_VARIABLES: dict[str, dict[str, str]] = {
    "auto": {},
    "cpu": {"CUDA_VISIBLE_DEVICES": "-1"},  # also where the TaskManager's environment has some
    "cuda": {NEEDS_GPU: "1"},
}


def scoring_role(
    entry: ScoringEntry,
    *,
    exchange: ExchangeConfig,
    workers: int = 1,
    device: Device = "auto",
    environment: Mapping[str, str] | None = None,
) -> RoleConfig:
    """Return the role; a model whose path is a URI is copied by Flink to each worker.

    Args:
        entry: What scores.
        exchange: Size and pace of the memory queue.
        workers: How many.
        device: What they compute on; see `predict`.
        environment: Environment variables of their processes.

    Raises:
        ConfigError: `device` is unknown, or the settings need a path and the model has none.
    """
    if device not in _GPU_USE:
        msg = f"device={device!r} must be 'auto', 'cpu' or 'cuda'"
        raise ConfigError(msg)
    path, settings = entry.model.path, entry.settings
    if path is None and not (settings.reload is None and settings.version_column is None):
        msg = (
            f"reload={settings.reload!r} and version_column={settings.version_column!r} need a "
            "model with a path: PythonModel(factory, path=...) has one"
        )
        raise ConfigError(msg)
    mirror = None
    if path is not None and is_uri(path):
        every_s = settings.reload_every_s if settings.reload else None
        mirror = MirrorConfig(uri=str(path), every_s=every_s)
    return RoleConfig(
        entry=entry,
        parallelism=workers,
        environment={
            **KEEP_MEMORY,
            **_VARIABLES[device],
            **(environment or {}),
        },
        gpu=_GPU_USE[device],
        exchange=exchange,
        mirror=mirror,
    )
