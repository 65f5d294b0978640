"""What an algorithm process may say to its node: the seam to `headrace.framework`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

__all__ = ["RoleLink"]


class RoleLink(Protocol):
    """The line to the node; `headrace.framework.link.ProcessLink` is one.

    Thread model: safe from any thread of the process.
    """

    def report(self, values: Mapping[str, float], rows_in: int, rows_out: int) -> None:
        """Send the latest values and row counts. Does not wait for an answer."""

    def publish(self, key: str, value: str) -> None:
        """Make `value` known under `key` to every process of this attempt."""

    def lookup(self, key: str, timeout_s: float) -> str:
        """Wait for the value under `key`, at most `timeout_s` seconds."""

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        """Ask for the end of all roles with success.

        Args:
            reason: For the status and the log.
            with_savepoint: The job is to be drained into a savepoint: nobody is stopped now.
        """
