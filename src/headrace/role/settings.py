"""What holds for every process that trains, in any framework."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headrace._counts import require_count

__all__ = ["TrainingSettings"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSettings:
    """Travels to every process with the entry function; framework layers extend it.

    A subclass that checks its own fields calls `TrainingSettings.__post_init__(self)` by name:
    in a dataclass with slots, `super()` without arguments does not work.

    Attributes:
        epochs: Passes of `ctx.batches` where a call names none, at least 1.
        output_dir: Where `ctx.save` writes; it must be the same directory on all hosts that
            matter. None: `ctx.save` is an error.
        export_to: Where a model to serve is written for each completed checkpoint, one
            directory for those who write and those who serve. None: none is.
        keep_exports: How many of these are kept, at least 1.
        has_held_out: Whether the input has the column `HELD_OUT`, by which rows are kept aside.

    Raises:
        ConfigError: A count is below 1.
    """

    epochs: int = 1
    output_dir: Path | None = None
    export_to: Path | None = None
    keep_exports: int = 3
    has_held_out: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "keep_exports"):
            object.__setattr__(self, name, require_count(name, getattr(self, name)))
