"""What a runner is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, TypeAlias

from headrace.framework.process import ProcessSpec

__all__ = ["EntryKind", "Runner", "RunnerCommand", "RunnerContext"]

EntryKind: TypeAlias = Literal["function", "script", "none", "any"]
"""What a runner takes as `RoleConfig.entry`: a function, a path, nothing, or any of these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerContext:
    """What a runner may know about the process it is to start.

    Attributes:
        spec: The facts that the process will find in its spec file.
        python: Path of the interpreter of the node; the one to start Python with.
        script: Script of the role, if it has one.
        args: Arguments of the role.
        environment: Environment variables of the role; the node sets them by itself.
    """

    spec: ProcessSpec
    python: str
    script: str | None = None
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerCommand:
    """How the algorithm process is started.

    Attributes:
        argv: Program and arguments; no shell is involved.
        environment: Variables over those of the node and of the role.
        cwd: Working directory; None for the process' own, `spec.work_dir`.
    """

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None


class Runner(ABC):
    """Says how the algorithm process of a node is started. Subclass it and pass the class.

    The node makes one instance per node, without arguments. It starts what `command` returns
    in a session of its own, with the link and the spec file in the environment, and ends it.
    An exit code of 0 is success; anything else is a failure.

    Thread model: `command` runs on a thread of the node that may block, bounded by
    `timeouts.process_start_timeout_s`, once per start. An exception from it fails the node.

    Attributes:
        entry_kind: What it takes as the role's entry; checked when the role is planned.
        needs_port: Whether every node of the role keeps a TCP port, whatever the role says.
        url_scheme: Such as "http", if a person can open what the process serves on the port;
            `JobHandle.status()` then shows the URL. None if there is nothing to open.
        needed_options: Keys that the role's options must have; checked likewise.
    """

    entry_kind: ClassVar[EntryKind] = "any"
    needs_port: ClassVar[bool] = False
    url_scheme: ClassVar[str | None] = None
    needed_options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def command(self, context: RunnerContext) -> RunnerCommand:
        """Return the command of one attempt.

        Args:
            context: What the process is to be.
        """
