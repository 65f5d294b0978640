"""How long one call of a job's handle may wait."""

from __future__ import annotations

import time
from collections.abc import Callable

from headrace.errors import WaitTimeoutError

__all__ = ["WaitLimit"]

_REFRESH_EVERY_MS = 500


class WaitLimit:
    """What a call has of its `timeout_s`, from the making of this object on.

    Thread model: one thread.

    Attributes:
        method: Whose limit it is, as an error says it: "stop()".

    Args:
        job_name: Name of the job that is waited for.
        method: As the attribute.
        timeout_s: In seconds; None never ends.
    """

    def __init__(self, job_name: str, method: str, timeout_s: float | None) -> None:
        self.method = method
        self._job_name = job_name
        self._timeout_s = timeout_s
        self._began = time.monotonic()

    def has_ended(self, is_there: Callable[[int], bool]) -> bool:
        """Wait up to the refresh pause for the end of a job, or of what was asked of Flink.

        Args:
            is_there: Waits that many milliseconds at most, and returns whether it has ended.

        Returns:
            Whether it has ended, well or not; at once when it has.

        Raises:
            WaitTimeoutError: It has not, and the time has passed.
        """
        if is_there(self.left_ms(_REFRESH_EVERY_MS)):
            return True
        self.require_left(
            f"the end of job {self._job_name!r}", "The job goes on; wait again or cancel it."
        )
        return False

    def left_ms(self, most_ms: int) -> int:
        """Return the milliseconds that are left, 0 to `most_ms`."""
        if self._timeout_s is None:
            return most_ms
        left_s = self._timeout_s - (time.monotonic() - self._began)
        return max(0, min(most_ms, int(left_s * 1000)))

    def require_left(self, waited_for: str, hint: str) -> None:
        """Refuse to wait on, once the time has passed.

        Raises:
            WaitTimeoutError: It has; says what was waited for, and what to do.
        """
        if self._timeout_s is not None and self.left_ms(1) == 0:
            raise WaitTimeoutError(
                waited_for=waited_for,
                waited_s=self._timeout_s,
                setting=f"timeout_s of {self.method}",
                hint=hint,
            )
