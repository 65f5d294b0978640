"""When to stop a training: a value on the held-out rows that gets no better."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from headrace._counts import require_count
from headrace.errors import ConfigError

__all__ = ["EarlyStopping"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlyStopping:
    """Stop when a value on the held-out table has not become better for some epochs.

    Attributes:
        monitor: "loss", or the name of a metric; the value on the held-out table.
        patience: How many epochs in a row may bring nothing better, at least 1.
        min_delta: What is better by less than this does not count, at least 0.
        mode: Whether a smaller ("min") or a larger value ("max") is better.
        restore_best: Whether the model of the best epoch is kept, and not that of the last.

    Raises:
        ConfigError: A value is unknown or out of its limits.
    """

    monitor: str = "loss"
    patience: int = 3
    min_delta: float = 0.0
    mode: Literal["min", "max"] = "min"
    restore_best: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "patience", require_count("patience", self.patience))
        if not (self.min_delta >= 0 and math.isfinite(self.min_delta)):
            msg = f"EarlyStopping(min_delta={self.min_delta}) must be at least 0; try 0.0"
            raise ConfigError(msg)
        if self.mode not in ("min", "max"):
            msg = f"EarlyStopping(mode={self.mode!r}) must be 'min' or 'max'"
            raise ConfigError(msg)

    def is_better(self, value: float, best: float | None) -> bool:
        """Return whether `value` is better than the best so far; NaN never is."""
        if math.isnan(value):
            return False
        if best is None:
            return True
        gain = best - value if self.mode == "min" else value - best
        return gain > self.min_delta

    def require_known(self, names: list[str]) -> None:
        """Raise a `ConfigError` unless `monitor` is among the names of loss and metrics."""
        if self.monitor not in names:
            msg = (
                f"EarlyStopping(monitor={self.monitor!r}) is none of the values that are "
                f"computed: {', '.join(names)}. Choose one of them, or add it to `metrics`"
            )
            raise ConfigError(msg)
