"""What has happened: the only input of the state machine. Plain data, JSON both ways."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from headrace.framework.failure import Failure
from headrace.framework.machine.facts import ProcessState

__all__ = [
    "AnyEvent",
    "Event",
    "GatherDeadlineReached",
    "MasterStarted",
    "NodeEvent",
    "NodeLost",
    "NodeRegistered",
    "ProcessEvent",
    "ProcessFailed",
    "ProcessFinished",
    "ProcessStopped",
    "RecoverDeadlineReached",
    "StopDeadlineReached",
    "StopRequested",
]


class Event(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something that happened during `attempt`; an event of an older attempt is void."""

    attempt: int

    @property
    def subject(self) -> str:
        """Return what the event is about, for log lines; may be empty."""
        return ""


class NodeEvent(Event, frozen=True, kw_only=True, tag=True):
    """Something that a node reported, or that happened to it.

    Attributes:
        node: Its name, for example "worker-0".
        instance: Identity of the node process it is about; a replaced one is void.
    """

    node: str
    instance: str

    @property
    def subject(self) -> str:
        """Return the node's name."""
        return self.node


class MasterStarted(Event, frozen=True, kw_only=True, tag=True):
    """The master listens; nodes can register."""


class NodeRegistered(NodeEvent, frozen=True, kw_only=True, tag=True):
    """A node has registered, for the first time or again, with the state of its own process.

    Attributes:
        role: Its role.
        index: Its number in the role.
        parallelism: Nodes of its role at run time.
        host: Where it runs, as peers can reach it.
        port: The TCP port that it keeps for its process; None if its role has none.
        process: State of its algorithm process.
        process_attempt: Attempt of that process; None if none was started.
        process_life: Its number within that attempt.
        failure: How the process failed, if it did.
        ending_reason: Why the job ends, if a master had already told the node to stop for good.
    """

    role: str
    index: int
    parallelism: int
    host: str
    port: int | None = None
    process: ProcessState = ProcessState.NONE
    process_attempt: int | None = None
    process_life: int = 0
    failure: Failure | None = None
    ending_reason: str | None = None


class NodeLost(NodeEvent, frozen=True, kw_only=True, tag=True):
    """A node sent no heartbeat for `silent_s` seconds, longer than `limit_s`."""

    silent_s: float
    limit_s: float


class ProcessEvent(NodeEvent, frozen=True, kw_only=True, tag=True):
    """The algorithm process of a node has ended.

    Attributes:
        life: Number of the process within the attempt; an event of an earlier one is void.
    """

    life: int = 0


class ProcessFinished(ProcessEvent, frozen=True, kw_only=True, tag=True):
    """The algorithm process of a node ended with success."""


class ProcessFailed(ProcessEvent, frozen=True, kw_only=True, tag=True):
    """The algorithm process of a node failed, or could not be started."""

    failure: Failure


class ProcessStopped(ProcessEvent, frozen=True, kw_only=True, tag=True):
    """The algorithm process of a node ended because it was told to."""


class StopRequested(Event, frozen=True, kw_only=True, tag=True):
    """A process asked to end the whole job with success."""

    reason: str

    @property
    def subject(self) -> str:
        """Return the reason."""
        return self.reason


class GatherDeadlineReached(Event, frozen=True, kw_only=True, tag=True):
    """`limit_s` seconds have passed since the master began to gather the nodes."""

    limit_s: float


class RecoverDeadlineReached(Event, frozen=True, kw_only=True, tag=True):
    """`limit_s` seconds, from `setting`, have passed since the group was to restart.

    With `node`: since that node fell silent and the others went on.
    """

    limit_s: float
    setting: str
    node: str | None = None


class StopDeadlineReached(Event, frozen=True, kw_only=True, tag=True):
    """`limit_s` seconds have passed since every process was told to end."""

    limit_s: float


AnyEvent: TypeAlias = (
    MasterStarted
    | NodeRegistered
    | NodeLost
    | ProcessFinished
    | ProcessFailed
    | ProcessStopped
    | StopRequested
    | GatherDeadlineReached
    | RecoverDeadlineReached
    | StopDeadlineReached
)
"""Every event, for decoding."""
