"""What a count is, wherever a user gives one."""

from __future__ import annotations

import math
import operator
from typing import Any

from headrace.errors import ConfigError

__all__ = ["require_bounds", "require_count"]


def require_count(name: str, value: Any, *, least: int = 1, most: int | None = None) -> int:
    """Return the count as an int; a NumPy integer is a count, a bool or a float is none.

    Raises:
        ConfigError: It is no whole number, or out of its limits.
    """
    count = _whole(value)
    if count is not None and least <= count and (most is None or count <= most):
        return count
    limits = f"of at least {least}" if most is None else f"from {least} to {most}"
    msg = (
        f"{name}={value!r} must be a whole number {limits}; try {_nearest(value, least, most)}"
    )
    raise ConfigError(msg)


def require_bounds(name: str, value: Any) -> tuple[int, int]:
    """Return the least and the largest count of a pair; those of a count are the same.

    Raises:
        ConfigError: It is neither a count nor a pair of counts in their order.
    """
    if not isinstance(value, tuple | list):
        count = require_count(name, value)
        return count, count
    if len(value) != 2:
        msg = f"{name}={value!r} must be a count, or a pair of the least and the largest one"
        raise ConfigError(msg)
    most = require_count(f"{name}[1]", value[1])
    return require_count(f"{name}[0]", value[0], most=most), most


def _nearest(value: Any, least: int, most: int | None) -> int:
    """Return the count nearest to a number, the least one for what is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):
        return least
    return max(least, int(value) if most is None else min(int(value), most))


def _whole(value: Any) -> int | None:
    if isinstance(value, bool) or str(getattr(value, "dtype", "")).endswith("bool"):
        return None  # a bool of NumPy or torch is an index as well
    try:
        return operator.index(value)
    except TypeError:
        return None
