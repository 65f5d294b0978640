"""What `headrace.pytorch.train` settles for every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headrace.errors import ConfigError
from headrace.role import TrainingSettings

__all__ = ["TorchSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings(TrainingSettings):
    """Travels to every worker with the entry function.

    Attributes:
        device: "auto" takes the GPU that the process was assigned, else the CPU; "cuda" must
            find one; "cpu" takes none.
        idle_after_s: How long a worker that waits for rows holds up the others' steps, in
            seconds, at least 0.

    Raises:
        ConfigError: A value is unknown or out of its limits.
    """

    device: Literal["auto", "cpu", "cuda"] = "auto"
    idle_after_s: float = 0.1

    def __post_init__(self) -> None:
        TrainingSettings.__post_init__(self)
        if self.device not in ("auto", "cpu", "cuda"):
            msg = f"device={self.device!r} must be 'auto', 'cpu' or 'cuda'"
            raise ConfigError(msg)
        if not self.idle_after_s >= 0:
            msg = f"idle_after_s={self.idle_after_s} must be at least 0 seconds; try 0.1"
            raise ConfigError(msg)
