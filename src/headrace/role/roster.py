"""What one process knows of others that come to rest at the barriers of checkpoints. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Roster", "Ruling"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What is to be done now.

    Attributes:
        is_complete: All others are at rest at the barrier that is held, or are over.
        is_older: Another one is at a later barrier: the one that is held was aborted.
        released: The others that stand at a barrier which is over here: nobody else will
            answer it.
    """

    is_complete: bool
    is_older: bool
    released: tuple[int, ...]


class Roster:
    """Where the others stand.

    Ids of checkpoints grow, so what another one has said last counts. Who goes on because its
    checkpoint was aborted need not say so: an answer to that one counts nowhere.

    Args:
        others: How many there are; each is known by its number from 0.
    """

    def __init__(self, others: int) -> None:
        self._at: list[int | None] = [None] * others
        self._over = [False] * others

    @property
    def are_all_over(self) -> bool:
        """Whether all others will change nothing any more."""
        return all(self._over)

    def reach(self, other: int, checkpoint_id: int) -> None:
        """Note that one is at rest at a barrier."""
        self._at[other] = checkpoint_id

    def end(self, other: int) -> None:
        """Note that one is at rest for good."""
        self._at[other] = None
        self._over[other] = True

    def rule(self, *, held: int | None, passed: int) -> Ruling:
        """Say what follows.

        Args:
            held: The barrier that is held here, or None.
            passed: The latest one that is over here.
        """
        at = [each for each, over in zip(self._at, self._over, strict=True) if not over]
        return Ruling(
            is_complete=held is not None and all(each == held for each in at),
            is_older=held is not None and any(each is not None and each > held for each in at),
            released=self._standing(lambda at: at < held if held is not None else at <= passed),
        )

    def answer(self, checkpoint_id: int) -> tuple[int, ...]:
        """Note that a barrier was answered; return who stood at it."""
        stood = self._standing(lambda at: at == checkpoint_id)
        self.release(stood)
        return stood

    def release(self, others: tuple[int, ...]) -> None:
        """Note that these have been told that their barrier is over."""
        for other in others:
            self._at[other] = None

    def _standing(self, where: Callable[[int], bool]) -> tuple[int, ...]:
        return tuple(n for n, at in enumerate(self._at) if at is not None and where(at))
