"""Names, limits and errors that both ends of the RPC share."""

from __future__ import annotations

from headrace.errors import HeadraceError
from headrace.framework.rpc.limits import ServerLimits

__all__ = [
    "MESSAGE_BYTES",
    "SERVICE",
    "TOKEN_KEY",
    "MasterUnreachableError",
    "RefusedError",
    "StaleAttemptError",
    "UnknownNodeError",
]

SERVICE = "headrace.Master"
TOKEN_KEY = "headrace-token"  # noqa: S105 - name of the metadata entry
MESSAGE_BYTES = ServerLimits().message_bytes
"""Longest message, in either direction."""


class MasterUnreachableError(HeadraceError):
    """The master did not answer in time, or there is none at the address: try again."""


class StaleAttemptError(HeadraceError):
    """The request was of an older attempt.

    Attributes:
        attempt: The master's attempt.
    """

    def __init__(self, attempt: int) -> None:
        self.attempt = attempt
        super().__init__(f"The attempt of the request is over; the master is at {attempt}.")


class UnknownNodeError(HeadraceError):
    """The master does not know this node process: it must register first."""


class RefusedError(HeadraceError):
    """The master refuses the request for good: a wrong token, or an unreadable message."""
