"""The steps of a process that makes no rounds with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from headrace.role.barriers import Barriers
from headrace.role.reporting import wait_patiently

__all__ = ["Alone"]

_T = TypeVar("_T")


class Alone:
    """What `headrace.role.rounds.Rounds` is for several workers, for one; and before any step.

    Nobody to wait for, and no arithmetic. A framework that counts the steps of one worker
    derives from it. Thread model as `Rounds`.
    """

    @property
    def steps(self) -> int:
        """Optimizer steps that were counted."""
        return 0

    @property
    def is_common(self) -> bool:
        """Whether barriers are answered together with other workers."""
        return False

    @property
    def pending_rows(self) -> int:
        """Rows have no weight here: 0."""
        return 0

    def count(self, rows: int) -> None:
        """Rows have no weight here."""

    def common_part(self) -> dict[str, Any]:
        """Return the steps; see `Rounds.common_part`."""
        return {"steps": self.steps}

    def own_part(self) -> dict[str, Any]:
        """Nothing but what was named is kept."""
        return {}

    def restore(self, common: dict[str, Any], own: dict[str, Any]) -> None:
        """Go on counting behind a restored checkpoint, before the first step."""

    def use_barriers(self, barriers: Barriers | None) -> None:
        """Nobody else has barriers: each is answered when it is reached."""

    def wait(self, poll: Callable[[float], _T | None]) -> _T:
        """Call `poll` with a time-out in seconds until it returns something."""
        return wait_patiently(poll)

    def end_pass(self, attend: Callable[[], object]) -> None:
        """Nobody else has a pass to end."""

    def finish(self, attend: Callable[[], object]) -> None:
        """Nobody else has steps to make."""

    def settle(self, attend: Callable[[], object]) -> None:
        """Nobody else has steps to make."""

    def finish_after_step(self, attend: Callable[[], object]) -> None:
        """Nobody else has steps to make."""

    def close(self) -> None:
        """Give the optimizer back as it was. Idempotent."""
