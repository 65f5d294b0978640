"""What an algorithm process is told at its start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from headrace._environ import PROCESS_SPEC, environment_value
from headrace.config import TimeoutConfig
from headrace.errors import UsageError
from headrace.framework.address import join_address

__all__ = ["ProcessSpec", "StateRef", "read_process_spec"]


class StateRef(msgspec.Struct, frozen=True, kw_only=True):
    """What a Flink checkpoint holds of one process.

    Attributes:
        path: Where the file with its state can be opened; None: no row had been handed to it.
        index: Its number within its role then.
        parallelism: Processes of its role then.
    """

    path: str | None
    index: int
    parallelism: int


class ProcessSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The facts about one algorithm process; the file that HEADRACE_PROCESS_SPEC names.

    Attributes:
        job_name: Name of the job.
        role: Name of the role, for example "worker".
        index: Number within the role, from 0.
        parallelism: Processes of this role at run time.
        attempt: Number of the group's start, from 1.
        life: Number of this process within the attempt: how often it was started again alone.
        cluster: Role to the hosts of its processes in the order of their index; empty without a
            master.
        ports: Role to the ports of its nodes, likewise; only roles with `has_port`.
        host: Where this process runs, as peers can reach it.
        port: The TCP port that is kept for this process on its host; a server that sets
            SO_REUSEADDR can listen on it. None without `has_port`.
        queue_socket: Path of the memory queue's socket; None if the role has no input or
            output.
        has_checkpoints: Whether the job makes Flink checkpoints at intervals; others may be
            asked for all the same.
        is_restored: Whether the input starts behind a Flink checkpoint, so that rows before it
            will not come again.
        restored_parallelism: Processes of this role at that checkpoint; None without one.
        states: What that checkpoint holds for this process: several, or none, if its role had
            another parallelism then.
        mirror: Link to the copy of what `RoleConfig.mirror` names; None without.
        work_dir: Directory of this process alone, and its working directory; the node
            removes it when the process has ended.
        payload_path: File with the entry function.
        checkpoint_dir: Directory that all attempts share; None if the job has none.
        options: JSON values from the plan.
        timeouts: Limits on every wait.

    Source: docs/lifecycle.md section 5.
    """

    job_name: str
    role: str
    index: int
    parallelism: int
    attempt: int
    life: int = 0
    cluster: dict[str, tuple[str, ...]] = {}
    ports: dict[str, tuple[int, ...]] = {}
    host: str
    port: int | None = None
    queue_socket: str | None = None
    has_checkpoints: bool = False
    is_restored: bool = False
    restored_parallelism: int | None = None
    states: tuple[StateRef, ...] = ()
    mirror: str | None = None
    work_dir: str
    payload_path: str
    checkpoint_dir: str | None = None
    options: dict[str, Any] = {}
    timeouts: TimeoutConfig = msgspec.field(default_factory=TimeoutConfig)

    @property
    def node(self) -> str:
        """Name of the node, for example "worker-0"."""
        return f"{self.role}-{self.index}"

    @property
    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Role to the "host:port" of its nodes in the order of their index; IPv6 in brackets.

        Only roles with ports. Every port is kept for its node before any process starts.
        """
        return {
            role: tuple(map(join_address, self.cluster[role], ports))
            for role, ports in self.ports.items()
        }


def read_process_spec() -> ProcessSpec:
    """Return the facts about this process.

    Raises:
        UsageError: This process was not started by a node.
        OSError: The file cannot be read.
    """
    path = environment_value(PROCESS_SPEC)
    if path is None:
        msg = f"{PROCESS_SPEC} is not set: this process was not started by a Headrace node."
        raise UsageError(msg)
    return msgspec.json.decode(Path(path).read_bytes(), type=ProcessSpec)
