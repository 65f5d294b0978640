"""Means over the rows of many batches, and of many workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

__all__ = ["Sums"]


class Sums:
    """Adds up values that are means over the rows of a batch. One thread.

    Args:
        names: Of the values.

    Attributes:
        rows: Rows so far.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.rows = 0
        self._totals = dict.fromkeys(names, 0.0)

    def add(self, rows: int, means: Mapping[str, float]) -> None:
        """Add the means over `rows` rows."""
        self.rows += rows
        for name in self._totals:
            self._totals[name] += means[name] * rows

    def to_list(self) -> list[float]:
        """Return the numbers that are added up over the workers."""
        return [float(self.rows), *self._totals.values()]

    def set(self, numbers: Sequence[float]) -> None:
        """Go on from what `to_list` returned.

        Raises:
            ValueError: It was one of others.
        """
        rows, *totals = numbers
        if len(totals) != len(self._totals):
            msg = f"it holds {len(totals)} values, and these are {', '.join(self._totals)}"
            raise ValueError(msg)
        self.rows = round(rows)
        self._totals = dict(zip(self._totals, totals, strict=True))

    def means_of(self, totals: Sequence[float], prefix: str = "") -> dict[str, float]:
        """Return the means, and the rows, of what such lists add up to; none without rows."""
        rows, *rest = totals
        if not rows:
            return {}
        means = {
            f"{prefix}{name}": total / rows
            for name, total in zip(self._totals, rest, strict=True)
        }
        return {**means, f"{prefix}rows": rows}
