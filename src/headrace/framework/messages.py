"""The messages between node and master, as docs/lifecycle.md section 3 lists them."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from headrace.framework.failure import Failure
from headrace.framework.machine.facts import ProcessState

__all__ = [
    "Ack",
    "Attend",
    "Beat",
    "Directive",
    "Lookup",
    "LookupReply",
    "NodeRequest",
    "Publish",
    "Register",
    "RegisterReply",
    "ReportEnd",
    "StartProcess",
    "StopJob",
    "StopProcess",
]


class NodeRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What every request carries.

    Attributes:
        node: Name of the node, for example "worker-0".
        instance: Identity of the node process.
        attempt: The attempt that the node knows; an older one than the master's is refused.
    """

    node: str
    instance: str
    attempt: int


class Register(NodeRequest, frozen=True, kw_only=True):
    """Take part in the cluster, with the state of the node's own process. Safe to repeat.

    Attributes:
        role: Name of the role.
        index: Number in the role.
        parallelism: Nodes of the role at run time.
        host: Where the node runs, as peers can reach it.
        port: The TCP port that the node keeps for its process; None if the role has none.
        url_scheme: Such as "http", if a person can open what the process serves on the port.
        process: State of the algorithm process.
        process_attempt: Attempt of that process; None if none was started.
        process_life: Its number within that attempt.
        failure: How it failed, if it did.
        ending_reason: Why the job ends, if a master has told the node to stop for good.
        rows_in: Rows that the process has taken.
        rows_out: Rows that it has emitted.
        progress: Grows while the process gets on; see `NodeStatus`.
        report: Latest values of `ctx.report`.
    """

    role: str
    index: int
    parallelism: int
    host: str
    port: int | None = None
    url_scheme: str | None = None
    process: ProcessState = ProcessState.NONE
    process_attempt: int | None = None
    process_life: int = 0
    failure: Failure | None = None
    ending_reason: str | None = None
    rows_in: int = 0
    rows_out: int = 0
    progress: int = 0
    report: dict[str, float] = {}


class RegisterReply(msgspec.Struct, frozen=True, kw_only=True):
    """The registration counts.

    Attributes:
        attempt: The master's attempt.
        heartbeat_every_s: Pause between heartbeats, in seconds; longer in large clusters.
    """

    attempt: int
    heartbeat_every_s: float


class Attend(NodeRequest, frozen=True, kw_only=True):
    """Open the stream of directives. The present directive comes first, if there is one."""


class StartProcess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="start"):
    """Run process number `life` of `attempt`, after ending an older one. Safe to repeat.

    Attributes:
        attempt: Number of the group's start.
        life: Number of the process within the attempt, from 0.
        cluster: Role to the hosts of its nodes, in the order of their index.
        ports: Role to the ports of its nodes, likewise; roles with ports only.
    """

    attempt: int
    life: int = 0
    cluster: dict[str, tuple[str, ...]]
    ports: dict[str, tuple[int, ...]] = {}


class StopProcess(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="stop"):
    """End the process of `attempt` and report that. Safe to repeat.

    Attributes:
        attempt: The attempt that ends.
        life: The latest process of it that the node was told to run, perhaps without having
            heard it; the report is about this one.
        ending_reason: Why the job ends for good; None if the group will be started again.
    """

    attempt: int
    life: int = 0
    ending_reason: str | None = None


Directive: TypeAlias = StartProcess | StopProcess
"""What a node is to do. Only the latest one counts."""


class Beat(NodeRequest, frozen=True, kw_only=True):
    """A heartbeat. Counts as a sign of life in every attempt, so it is never refused.

    Attributes:
        rows_in: Rows that the process has taken since its start.
        rows_out: Rows that it has emitted since its start.
        report: Latest values of `ctx.report`.
    """

    rows_in: int = 0
    rows_out: int = 0
    progress: int = 0
    report: dict[str, float] = {}


class ReportEnd(NodeRequest, frozen=True, kw_only=True):
    """The process of `attempt` has ended. Safe to repeat.

    Attributes:
        life: Number of the process within the attempt.
        outcome: FINISHED, FAILED or STOPPED.
        failure: How it failed; not None if the outcome is FAILED.
        rows_in: Rows that the process has taken.
        rows_out: Rows that it has emitted.
        progress: Its last value.
        report: Last values of `ctx.report`; they come along since the end may end the job.
    """

    life: int = 0
    outcome: ProcessState
    failure: Failure | None = None
    rows_in: int = 0
    rows_out: int = 0
    progress: int = 0
    report: dict[str, float] = {}


class Publish(NodeRequest, frozen=True, kw_only=True):
    """Make a value known to the nodes of this attempt. Safe to repeat."""

    key: str
    value: str


class Lookup(NodeRequest, frozen=True, kw_only=True):
    """Wait for a value of this attempt, at most `timeout_s` seconds."""

    key: str
    timeout_s: float


class LookupReply(msgspec.Struct, frozen=True, kw_only=True):
    """The value, or None if nobody has published it in time."""

    value: str | None


class StopJob(NodeRequest, frozen=True, kw_only=True):
    """End the whole job with success. Safe to repeat.

    Attributes:
        reason: For the status and the log.
        with_savepoint: End nobody: the status tells the wish, and who waits for the job drains
            it into a savepoint.
    """

    reason: str
    with_savepoint: bool = False


class Ack(msgspec.Struct, frozen=True):
    """The request is with the master."""
