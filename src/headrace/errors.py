"""Every error that users of Headrace meet, raised or as the text of a failed job.

The four of `headrace.framework.rpc` stay between node and master.

Families by who must act::

    HeadraceError
    ├── ConfigError (ValueError)   the caller: a setting has a value that cannot work
    ├── PlanError                  the caller: the job cannot be planned like this
    ├── DataError (ValueError)     the caller: rows do not fit their schema
    ├── UsageError (RuntimeError)  the caller: a method is used where it cannot work
    ├── JobFailedError             the caller: the Flink job ended in failure
    ├── StopError                  the caller: a job did not stop as it was told to
    ├── UserCodeError              their code raised or its process ended badly
    ├── NodeLostError              platform: a node fell silent; it is restarted
    ├── MasterLostError            platform: the master cannot be reached
    ├── JobManagerLostError        platform: Flink does not tell how a job gets on
    ├── WaitTimeoutError           platform: a bounded wait ended; names the setting
    ├── CollectiveError            platform: a peer of an all-reduce is gone or silent
    ├── ServerLostError            platform: a parameter server is gone
    ├── ExchangeError              platform: the memory queue broke
    │   ├── PeerLostError          the other side ended without saying END
    │   └── RowTooLargeError       a row is over `exchange.max_row_bytes`
    └── ProtocolError              us: a message that must not be
        └── IllegalTransitionError us: an event without a row in the machine's table

Errors carry their facts as fields and build their text themselves. All of them pickle.
"""

from __future__ import annotations

from typing import Any

__all__ = [
    "CollectiveError",
    "ConfigError",
    "DataError",
    "ExchangeError",
    "HeadraceError",
    "IllegalTransitionError",
    "JobFailedError",
    "JobManagerLostError",
    "MasterLostError",
    "NodeLostError",
    "PeerLostError",
    "PlanError",
    "ProtocolError",
    "RowTooLargeError",
    "ServerLostError",
    "StopError",
    "UsageError",
    "UserCodeError",
    "WaitTimeoutError",
]


class HeadraceError(Exception):
    """Root of the tree. Subclasses with fields pickle through their keyword arguments."""

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {key: value for key, value in vars(self).items() if not key.startswith("__")}
        if fields:
            return (_rebuild, (type(self), fields))
        return (type(self), self.args)


def _rebuild(cls: type[HeadraceError], fields: dict[str, Any]) -> HeadraceError:
    return cls(**fields)


class ConfigError(HeadraceError, ValueError):
    """A setting has a value that cannot work; the text offers one that does."""


class PlanError(HeadraceError):
    """The job cannot be planned like this; nothing was submitted."""


class DataError(HeadraceError, ValueError):
    """Rows do not fit the schema that they are handed to; the text names column and types."""


class UsageError(HeadraceError, RuntimeError):
    """A method is used where or when it cannot work; the text says where it can."""


class JobFailedError(HeadraceError):
    """The Flink job ended in failure.

    Attributes:
        job_name: Name of the job.
        cause: Text of the first cause, Python traceback included where user code raised.
        advice: How another job can go on from what this one leaves; "" where it leaves nothing.
    """

    def __init__(self, job_name: str, cause: str, advice: str = "") -> None:
        self.job_name = job_name
        self.cause = cause
        self.advice = advice
        behind = f"\n{advice}" if advice else ""
        super().__init__(f"Job {job_name!r} failed. Cause:\n{cause}{behind}")


class StopError(HeadraceError):
    """A job did not stop with a savepoint as it was told to.

    Attributes:
        job_name: Name of the job.
        target: URI of the directory in which the savepoint was to be made.
        cause: Why not.
        savepoint: URI of the savepoint, if there is one all the same; the job has ended then.
        job_state: State of the Flink job afterwards: with "FINISHED" it had ended, by itself
            where there is no savepoint; with "RUNNING", "RESTARTING" or "CREATED" it goes on.
    """

    def __init__(
        self,
        *,
        job_name: str,
        target: str,
        cause: str,
        savepoint: str | None = None,
        job_state: str,
    ) -> None:
        self.job_name = job_name
        self.target = target
        self.cause = cause
        self.savepoint = savepoint
        self.job_state = job_state
        if savepoint is not None:
            text = f"Job {job_name!r} was stopped with the savepoint {savepoint}, but {cause}"
        elif job_state == "FINISHED":
            text = (
                f"Job {job_name!r} has ended by itself; there is no savepoint in {target}. "
                f"{cause}"
            )
        else:
            text = (
                f"Job {job_name!r} was not stopped with a savepoint in {target}; it goes on "
                f"({job_state}). {cause}"
            )
        super().__init__(text)


class UserCodeError(HeadraceError):
    """An algorithm process raised, or ended badly.

    Attributes:
        node: For example "worker-0".
        summary: One line: the exception, or how the process ended.
        traceback: The Python traceback, or None if the process could not write one.
        exit_code: Exit code; None if a signal ended the process or it still ran.
        signal: Name of the signal, for example "SIGKILL"; None without one.
        last_lines: The last lines that the process wrote to stdout and stderr.
        log_path: File with its whole output, if one is kept.
    """

    def __init__(
        self,
        *,
        node: str,
        summary: str,
        traceback: str | None = None,
        exit_code: int | None = None,
        signal: str | None = None,
        last_lines: tuple[str, ...] = (),
        log_path: str | None = None,
    ) -> None:
        self.node = node
        self.summary = summary
        self.traceback = traceback
        self.exit_code = exit_code
        self.signal = signal
        self.last_lines = last_lines
        self.log_path = log_path
        parts = [f"{node}: {summary}"]
        if signal is not None:
            parts.append(f"The process was ended by {signal}.")
        elif exit_code is not None:
            parts.append(f"The process ended with exit code {exit_code}.")
        if traceback:
            parts.append(traceback.rstrip())
        if last_lines:
            parts.append("Its last output:\n  " + "\n  ".join(last_lines))
        if log_path is not None:
            parts.append(f"Whole output: {log_path}")
        super().__init__("\n".join(parts))


class NodeLostError(HeadraceError):
    """A node sent no heartbeat for too long.

    Attributes:
        node: For example "worker-0".
        silent_s: For how long, in seconds.
        limit_s: The limit, in seconds.
    """

    def __init__(self, *, node: str, silent_s: float, limit_s: float) -> None:
        self.node = node
        self.silent_s = silent_s
        self.limit_s = limit_s
        super().__init__(
            f"Node {node} sent no heartbeat for {silent_s:.1f} s (limit {limit_s:.1f} s, set "
            "by `timeouts.heartbeat_timeout_s`). Its process is treated as dead and the "
            "attempt ends."
        )


class MasterLostError(HeadraceError):
    """The master cannot be reached.

    Attributes:
        node: Who looked for it, for example "worker-0".
        address: The "host:port" where it was last.
        silent_s: For how long it has not answered, in seconds.
        limit_s: The limit, in seconds.
    """

    def __init__(self, *, node: str, address: str, silent_s: float, limit_s: float) -> None:
        self.node = node
        self.address = address
        self.silent_s = silent_s
        self.limit_s = limit_s
        super().__init__(
            f"Node {node} has not reached the master at {address} for {silent_s:.1f} s "
            f"(limit {limit_s:.1f} s, set by `timeouts.master_lost_timeout_s`). The node ends "
            "its process."
        )


class JobManagerLostError(HeadraceError):
    """Flink does not tell how a job gets on: its JobManager cannot be reached.

    The job may go on: with Flink's high availability another JobManager restores it.

    Attributes:
        job_name: Name of the job.
        cause: What Flink's client says.
    """

    def __init__(self, job_name: str, cause: str) -> None:
        self.job_name = job_name
        self.cause = cause
        super().__init__(
            f"Flink does not tell how job {job_name!r} gets on; it may go on. Call the same "
            "again to ask anew. How long Flink's client tries is set by "
            f"`rest.retry.max-attempts` and `rest.retry.delay`. Cause:\n{cause}"
        )


class WaitTimeoutError(HeadraceError):
    """A bounded wait ended.

    Attributes:
        waited_for: What was waited for.
        waited_s: How long, in seconds.
        setting: The setting that bounds it.
        hint: What to do; may be empty.
    """

    def __init__(
        self, *, waited_for: str, waited_s: float, setting: str, hint: str = ""
    ) -> None:
        self.waited_for = waited_for
        self.waited_s = waited_s
        self.setting = setting
        self.hint = hint
        tail = f" {hint}" if hint else ""
        super().__init__(
            f"Waited {waited_s:.1f} s for {waited_for} (limit set by `{setting}`).{tail}"
        )


class CollectiveError(HeadraceError):
    """A collective operation failed: a peer has ended, or did not take part in time.

    Attributes:
        operation: For example "all-reduce of step 17".
        waited_s: How long this worker was in it, in seconds.
        limit_s: The limit, in seconds; None: what is waited for ends it alone.
        setting: The setting that is the limit; None: it cannot be set.
        reason: What the communication library said.
        is_consequence: True if a peer has ended: what ended it is the cause, and is reported by
            the peer. False if the limit has passed.
    """

    def __init__(
        self,
        *,
        operation: str,
        waited_s: float,
        limit_s: float | None,
        reason: str,
        is_consequence: bool,
        setting: str | None = "timeouts.collective_timeout_s",
    ) -> None:
        self.operation = operation
        self.waited_s = waited_s
        self.limit_s = limit_s
        self.setting = setting
        self.reason = reason
        self.is_consequence = is_consequence
        if is_consequence:
            what = (
                "A peer has ended; its own error is the cause, and this process ends with it. "
                "Mend that one: a longer limit would not help."
            )
        else:
            what = (
                "A peer is alive but did not take part. If its step may take that long, raise "
                "the limit."
            )
        limit = "no limit" if limit_s is None else f"limit {limit_s:.1f} s"
        if setting is not None:
            limit += f", set by `{setting}`"
        super().__init__(
            f"The {operation} failed after {waited_s:.1f} s ({limit}). {what} "
            f"The library said: {reason}"
        )


class ServerLostError(HeadraceError):
    """A parameter server has ended, or cannot be reached.

    Attributes:
        reason: What the communication library said.
    """

    def __init__(self, *, reason: str) -> None:
        self.reason = reason
        super().__init__(
            "A parameter server has ended, and the variables with it; its own error is the "
            f"cause. The library said: {reason}"
        )


class ExchangeError(HeadraceError):
    """The memory queue broke; the process must start again."""


class PeerLostError(ExchangeError):
    """The other side of the memory queue ended without saying so."""


class RowTooLargeError(ExchangeError):
    """One row needs more bytes than `exchange.max_row_bytes` allows.

    Attributes:
        row_bytes: How many it needs.
        limit_bytes: The limit.
    """

    def __init__(self, *, row_bytes: int, limit_bytes: int) -> None:
        self.row_bytes = row_bytes
        self.limit_bytes = limit_bytes
        super().__init__(
            f"A row needs {row_bytes} bytes, more than `exchange.max_row_bytes`={limit_bytes}. "
            "It was not sent. Raise the setting, or split the row."
        )


class ProtocolError(HeadraceError):
    """A peer sent what the protocol does not allow: a defect, or a foreign process."""


class IllegalTransitionError(ProtocolError):
    """An event has no row in the state machine's table for the present state.

    Attributes:
        event: The event, as text.
        state: Name of the state.
        history: The last transitions before it, as texts, oldest first.
    """

    def __init__(self, *, event: str, state: str, history: tuple[str, ...]) -> None:
        self.event = event
        self.state = state
        self.history = history
        super().__init__(
            f"{event} is not allowed in state {state}; history: {' | '.join(history) or 'none'}"
        )
