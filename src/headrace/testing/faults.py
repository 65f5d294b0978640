"""Faults as data: what goes wrong in a run, where, and for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from headrace._counts import require_count
from headrace.errors import ConfigError

__all__ = ["Fault", "Kill", "Pause"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """The input of one worker goes quiet for a while.

    Attributes:
        worker: Index of the worker, from 0.
        after_rows: Rows that it is given before; 0: it starts late.
        for_s: How long, in seconds, from when the worker asks for more.

    Raises:
        ConfigError: A value is below 0.
    """

    worker: int
    after_rows: int
    for_s: float

    def __post_init__(self) -> None:
        _set_place(self)
        if not self.for_s >= 0:
            msg = f"Pause(for_s={self.for_s}) must be at least 0 seconds"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One worker's process ends by SIGKILL when it asks for more rows.

    Attributes:
        worker: Index of the worker, from 0.
        after_rows: Rows that it is given before.

    Raises:
        ConfigError: A value is below 0.
    """

    worker: int
    after_rows: int

    def __post_init__(self) -> None:
        _set_place(self)


Fault: TypeAlias = Pause | Kill


def _set_place(fault: Fault) -> None:
    for name in ("worker", "after_rows"):
        count = require_count(f"{type(fault).__name__}.{name}", getattr(fault, name), least=0)
        object.__setattr__(fault, name, count)
