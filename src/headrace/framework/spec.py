"""What the plan ships to the master and to every node: the JSON behind `spec_path`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from headrace.config import GpuUse, TimeoutConfig

__all__ = [
    "MasterSpec",
    "NodeSpec",
    "PlannedRole",
    "encode_spec",
    "read_master_spec",
    "read_node_spec",
]


class PlannedRole(msgspec.Struct, frozen=True, kw_only=True):
    """One role as planned.

    Attributes:
        planned_parallelism: Nodes in the plan; at run time the nodes report the real number.
        has_input: Whether rows flow into the role ("stream mode": no restart in place).
    """

    planned_parallelism: int
    has_input: bool = False


class MasterSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What the master needs to know.

    Attributes:
        job_name: Name of the job.
        machine: Name of a shipped state machine; None if the payload holds one.
        roles: Every role that registers, by name.
        max_restarts: Group restarts in batch mode before the job fails.
        timeouts: Limits on every wait.
    """

    job_name: str
    machine: str | None = "all_finish"
    roles: dict[str, PlannedRole]
    max_restarts: int = 3
    timeouts: TimeoutConfig = msgspec.field(default_factory=TimeoutConfig)


class NodeSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a node needs to know, the same for every node of its role.

    Attributes:
        runner: Name of a shipped runner; None if the payload holds a `Runner` class.
        script: Path of the script for runner="script"; a relative one is looked for in the
            working directory and then on the Python path, where shipped files are.
        args: Command-line arguments of a script.
        environment: Environment variables of the algorithm process, over the node's own.
        gpu: Whether the process gets one of the GPUs that Flink has assigned.
        has_port: Whether the node keeps a TCP port for its process.
        url_scheme: Such as "http", if a person can open what the process serves on the port.
        checkpoint_dir: Directory that all attempts share; None if the job has none.
        options: JSON values for the entry function.
        timeouts: Limits on every wait.
    """

    runner: str | None = "function"
    script: str | None = None
    args: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    gpu: GpuUse = "none"
    has_port: bool = False
    url_scheme: str | None = None
    checkpoint_dir: str | None = None
    options: dict[str, Any] = {}
    timeouts: TimeoutConfig = msgspec.field(default_factory=TimeoutConfig)


def encode_spec(spec: MasterSpec | NodeSpec) -> bytes:
    """Return the JSON that `read_master_spec` or `read_node_spec` takes back."""
    return msgspec.json.encode(spec)


def read_master_spec(path: str | Path) -> MasterSpec:
    """Read a master's spec.

    Raises:
        OSError: The file cannot be read.
        msgspec.DecodeError: It holds something else.
        ConfigError: A time-out in it cannot work.
    """
    return msgspec.json.decode(Path(path).read_bytes(), type=MasterSpec)


def read_node_spec(path: str | Path) -> NodeSpec:
    """Read a node's spec. Raises as `read_master_spec`."""
    return msgspec.json.decode(Path(path).read_bytes(), type=NodeSpec)
