"""What is to be done: the only output of the state machine. The master carries it out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from headrace.framework.failure import Failure

__all__ = [
    "ArmDeadline",
    "Command",
    "DeadlineName",
    "FailJob",
    "FinishJob",
    "StartProcesses",
    "StopProcesses",
]


class DeadlineName(Enum):
    """Which bounded wait of the master a deadline belongs to."""

    GATHER = "gather"
    RECOVER = "recover"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartProcesses:
    """Run an algorithm process on `nodes`; an older one is ended first.

    Attributes:
        attempt: The attempt that they run.
        life: Number of the process within the attempt.
        nodes: Whom to tell.
        cluster: Role to the hosts of its nodes, in the order of their index.
        ports: Role to the ports of its nodes, likewise; roles with ports only.
    """

    attempt: int
    life: int = 0
    nodes: tuple[str, ...]
    cluster: Mapping[str, tuple[str, ...]]
    ports: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StopProcesses:
    """End the algorithm process on `nodes` and report it.

    Attributes:
        attempt: The attempt that ends.
        life: The latest process of it that they were told to run.
        nodes: Whom to tell.
        ending_reason: Why the job ends for good; None if the group will be started again.
    """

    attempt: int
    life: int = 0
    nodes: tuple[str, ...]
    ending_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmDeadline:
    """Report the event of deadline `name` when the seconds of `setting` have passed.

    Arming again replaces the earlier one of that name and node.

    Attributes:
        attempt: The present attempt.
        name: What is waited for.
        setting: A field of `TimeoutConfig`.
        node: The one that is waited for while the others go on; None for the group.
    """

    attempt: int
    name: DeadlineName
    setting: str
    node: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailJob:
    """Fail the Flink job.

    Attributes:
        node: Whose failure is the root cause; None if it is nobody's.
        failure: The root cause: the first failure that arrived.
        is_restartable: Whether Flink's restart strategy may start the job again.
        note: What the master had tried before, as a sentence; may be empty.
    """

    node: str | None
    failure: Failure
    is_restartable: bool
    note: str = ""

    @property
    def message(self) -> str:
        """Return the whole text for a person."""
        text = self.failure.describe(self.node)
        return f"{text}\n{self.note}" if self.note else text


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishJob:
    """End the ML cluster with success."""

    reason: str


Command: TypeAlias = StartProcesses | StopProcesses | ArmDeadline | FailJob | FinishJob
