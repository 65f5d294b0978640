"""How a process or a node failed: the object that travels from it to the job's cause."""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.errors import UserCodeError

__all__ = ["Failure", "FailureKind"]

FailureKind = Literal["user_code", "process_lost", "environment", "node"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """One failure, as in docs/lifecycle.md section 5.

    Attributes:
        kind: "user_code": the entry function raised, or its process ended with an exit code;
            "process_lost": a signal ended the process; "environment": the process could not be
            started or its entry not be loaded; "node": a node or a wait of the master failed.
        message: One line that says what happened.
        traceback: The Python traceback without our own frames, or None if there is none.
        exit_code: Exit code of the process; None if a signal ended it or none ran.
        signal: Name of the signal, for example "SIGKILL"; None without one.
        last_lines: The last lines that the process wrote to stdout and stderr.
        log_path: File with the whole output, if one is kept.
        is_restartable: Whether another start could end better.
    """

    kind: FailureKind
    message: str
    traceback: str | None = None
    exit_code: int | None = None
    signal: str | None = None
    last_lines: tuple[str, ...] = ()
    log_path: str | None = None
    is_restartable: bool = True

    def to_error(self, node: str) -> UserCodeError:
        """Return the failure of `node` as the error that a caller can raise."""
        return UserCodeError(
            node=node,
            summary=self.message,
            traceback=self.traceback,
            exit_code=self.exit_code,
            signal=self.signal,
            last_lines=self.last_lines,
            log_path=self.log_path,
        )

    def describe(self, node: str | None) -> str:
        """Return the whole text for a person, traceback or last output included."""
        if self.kind == "node" or node is None:
            return self.message
        return str(self.to_error(node))
