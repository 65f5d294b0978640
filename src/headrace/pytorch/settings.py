"""What `headrace.pytorch.train` settles for every worker."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace._counts import require_count
from headrace.errors import ConfigError

__all__ = ["TorchSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchSettings:
    """Travels to every worker with the entry function.

    Attributes:
        epochs: Passes of `ctx.batches` and `ctx.dataset` where a call names none, at least 1.
        output_dir: Where `ctx.save` writes; it must be the same directory on all hosts that
            matter. None: `ctx.save` is an error.
        device: "auto" takes the GPU that the process was assigned, else the CPU.
        idle_after_s: How long a worker that waits for rows holds up the others' steps, in
            seconds.
    """

    epochs: int = 1
    output_dir: Path | None = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    idle_after_s: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", require_count("epochs", self.epochs))
        if self.device not in ("auto", "cpu", "cuda"):
            msg = f"device={self.device!r} must be 'auto', 'cpu' or 'cuda'"
            raise ConfigError(msg)
        if not self.idle_after_s >= 0:
            msg = f"idle_after_s={self.idle_after_s} must be at least 0 seconds; try 0.1"
            raise ConfigError(msg)
