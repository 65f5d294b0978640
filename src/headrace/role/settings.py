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
        has_held_out: Whether the input has the column `HELD_OUT`, by which rows are kept aside.
    """

    epochs: int = 1
    output_dir: Path | None = None
    has_held_out: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "epochs", require_count("epochs", self.epochs))
