"""What `headrace.tensorflow.train` settles for every process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace.errors import ConfigError
from headrace.role import TrainingSettings

__all__ = ["TFSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TFSettings(TrainingSettings):
    """Travels to every process with the entry function.

    Attributes:
        log_dir: Where the scalars of `ctx.report` go, for TensorBoard; the same directory on
            all hosts that matter. None: they are not written.
        idle_after_s: In synchronous training, how long a worker that waits for rows holds up
            the others' steps, in seconds, at least 0.
        is_stream: Whether the workers get rows from Flink.
        is_scaled_to_one: Whether Flink's scheduler may run one worker where more were planned.

    Raises:
        ConfigError: A value is out of its limits.
    """

    log_dir: Path | None = None
    idle_after_s: float = 0.1
    is_stream: bool = False
    is_scaled_to_one: bool = False

    def __post_init__(self) -> None:
        TrainingSettings.__post_init__(self)
        if not self.idle_after_s >= 0:
            msg = f"idle_after_s={self.idle_after_s} must be at least 0 seconds; try 0.1"
            raise ConfigError(msg)
