"""Which number is the highest, and do all have it: asked by sums alone.

An all-reduce adds up, and float32 holds whole numbers up to 2^24 only. So a number travels as
its bits: the sum of each says how many have it set. Where not all agree, the highest bit in
dispute tells who has not the highest number; those say no more, and the rest is asked again. No
sum is larger than the number of workers, so it is exact in every type.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["RollCall", "call_roll"]

_BITS = 63


@dataclass(frozen=True, slots=True)
class RollCall:
    """What all workers have learnt, each the same.

    Attributes:
        present: Workers that have a number.
        highest: The highest number; -1 if nobody has one.
        is_unanimous: Whether all that have a number have this one.
    """

    present: int
    highest: int
    is_unanimous: bool


def call_roll(add: Callable[[list[float]], list[float]], mine: int | None) -> RollCall:
    """Compare the workers' numbers. Collective: all call it, with the same kind of `add`.

    One sum where all agree, one more for each different number at most.

    Args:
        add: Returns the sums over all workers, number by number.
        mine: This worker's number, 0 to 2^63 - 1, or None.
    """
    present, highest = _ask(add, mine)
    among, rest = present, mine
    is_unanimous = True
    while among and (disputed := _highest_disputed(highest, among)) is not None:
        is_unanimous = False
        if rest is not None and not rest >> disputed & 1:
            rest = None
        among, highest = _ask(add, rest)
    number = sum(1 << bit for bit, count in enumerate(highest) if count)
    return RollCall(present, number if present else -1, is_unanimous)


def _ask(add: Callable[[list[float]], list[float]], mine: int | None) -> tuple[int, list[int]]:
    number = mine or 0
    bits = [float(number >> bit & 1) for bit in range(_BITS)]
    present, *sums = map(round, add([float(mine is not None), *bits]))
    return present, sums


def _highest_disputed(sums: list[int], among: int) -> int | None:
    return next((bit for bit in reversed(range(_BITS)) if 0 < sums[bit] < among), None)
