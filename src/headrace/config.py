"""Settings: frozen, checked when built, units in the names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias, cast

from headrace._counts import require_count
from headrace.errors import ConfigError

__all__ = [
    "AMConfig",
    "ExchangeConfig",
    "GpuUse",
    "MirrorConfig",
    "RoleConfig",
    "TimeoutConfig",
]

GpuUse: TypeAlias = Literal["auto", "required", "none"]

_PAGE_BYTES = 4096
_SEGMENT_LIMIT_BYTES = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeConfig:
    """How rows travel between a Flink subtask and its algorithm process.

    Attributes:
        batch_rows: Most rows in one batch on the queue, 1 to 1,048,576. What the entry function
            gets is set by `ctx.batches(rows=...)`, not by this.
        slots: Batches that fit into one direction of the queue, 2 to 1,024.
        slot_bytes: Bytes of one batch; a multiple of 4096, 65,536 to 536,870,912. A direction
            takes `slots * slot_bytes` of shared memory, less than 2 GiB.
        linger_ms: How long a batch that is not full may wait for more rows, in milliseconds, at
            most 3,600,000. 0: it leaves as soon as the process is free.
        max_row_bytes: A row over this is an error; a row over `slot_bytes` takes a slower path.
            1 to 2,147,483,647.

    Raises:
        ConfigError: A value is out of its limits; the text offers one that works.

    Source: docs/exchange.md.
    """

    batch_rows: int = 4096
    slots: int = 8
    slot_bytes: int = 2 * 1024 * 1024
    linger_ms: int = 10
    max_row_bytes: int = 1024 * 1024 * 1024

    def __post_init__(self) -> None:
        _set_count(self, "exchange", "batch_rows", 1, 1 << 20)
        _set_count(self, "exchange", "slots", 2, 1024)
        _set_count(self, "exchange", "slot_bytes", 1 << 16, 1 << 29)
        if self.slot_bytes % _PAGE_BYTES:
            nearest = (self.slot_bytes // _PAGE_BYTES + 1) * _PAGE_BYTES
            msg = (
                f"exchange.slot_bytes={self.slot_bytes} must be a multiple of {_PAGE_BYTES}; "
                f"try {nearest}"
            )
            raise ConfigError(msg)
        segment_bytes = self.slots * self.slot_bytes
        if segment_bytes >= _SEGMENT_LIMIT_BYTES:
            fitting = (_SEGMENT_LIMIT_BYTES - 1) // self.slot_bytes
            msg = (
                f"exchange.slots={self.slots} of exchange.slot_bytes={self.slot_bytes} are "
                f"{segment_bytes} bytes; one direction of the queue has to stay below "
                f"{_SEGMENT_LIMIT_BYTES}. Try slots={fitting}"
            )
            raise ConfigError(msg)
        _set_count(self, "exchange", "linger_ms", 0, 3_600_000)
        _set_count(self, "exchange", "max_row_bytes", 1, (1 << 31) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeoutConfig:
    """Every limit on a wait, in seconds.

    Attributes:
        gather_timeout_s: From the job's start until every node has registered. With
            process_start_timeout_s, also how long `predict` with `reload` waits for the first
            version of its model.
        heartbeat_every_s: Pause between two heartbeats of a node, and between two looks at
            its process.
        heartbeat_timeout_s: A node that is silent for longer is lost; an algorithm process
            that is stopped (SIGSTOP) for longer is killed, and lost.
        master_lost_timeout_s: How long a node looks for a master that does not answer.
        process_start_timeout_s: From the start of an algorithm process until it has connected;
            also how long a drain waits for a sign of one whose function is not called yet.
        stop_grace_s: From asking a process to end (TERM) until it is killed.
        stop_timeout_s: For the whole orderly end of a role; at a drain, since a process has
            given a sign that it gets on: see `JobHandle.stop`.
        checkpoint_hold_timeout_s: How long a Flink checkpoint waits for the process to have
            handled the rows before its barrier.
        collective_timeout_s: Longest wait of one collective operation (all-reduce).

    Raises:
        ConfigError: A value is no finite number over 0, or `heartbeat_timeout_s` is not longer
            than `heartbeat_every_s`.
    """

    gather_timeout_s: float = 120.0
    heartbeat_every_s: float = 1.0
    heartbeat_timeout_s: float = 10.0
    master_lost_timeout_s: float = 60.0
    process_start_timeout_s: float = 120.0
    stop_grace_s: float = 3.0
    stop_timeout_s: float = 30.0
    checkpoint_hold_timeout_s: float = 60.0
    collective_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not 0 < value < float("inf"):
                msg = (
                    f"timeouts.{each.name}={value} must be a finite number of seconds over 0; "
                    f"try {each.default}"
                )
                raise ConfigError(msg)
        if self.heartbeat_timeout_s <= self.heartbeat_every_s:
            msg = (
                f"timeouts.heartbeat_timeout_s={self.heartbeat_timeout_s} must be longer than "
                f"timeouts.heartbeat_every_s={self.heartbeat_every_s}; "
                f"try {10 * self.heartbeat_every_s}"
            )
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class AMConfig:
    """The application master of one ML cluster.

    Attributes:
        state_machine: Name of a shipped machine ("all_finish", "pytorch", "tensorflow") or a
            `headrace.framework.machine.Machine`.
        max_restarts: Group restarts in batch mode before the job fails; in stream mode Flink's
            own restart strategy decides. Where none is set, a job with checkpoints restarts as
            often, counted anew after 15 minutes without a failure. Where a process is restarted
            alone, also how often each may be within an attempt.
        max_master_restarts: Restarts of a lost master process before the job fails.
        timeouts: Limits on every wait.

    Raises:
        ConfigError: A number of restarts is no whole number from 0 to 1,000,000.

    Source: docs/lifecycle.md.
    """

    state_machine: object = "all_finish"
    max_restarts: int = 3
    max_master_restarts: int = 3
    timeouts: TimeoutConfig = field(default_factory=TimeoutConfig)

    def __post_init__(self) -> None:
        _set_count(self, "am", "max_restarts", 0, 1_000_000)
        _set_count(self, "am", "max_master_restarts", 0, 1_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorConfig:
    """What Flink copies to the host of each process before it starts.

    Attributes:
        uri: A file or directory, on any file system that Flink reads.
        every_s: Seconds between two looks for changes, at least 0.001, which are then copied as
            well; None copies once.

    Raises:
        ConfigError: `uri` is no URI, or `every_s` is too small.
    """

    uri: str
    every_s: float | None = None

    def __post_init__(self) -> None:
        if "://" not in self.uri:
            msg = f"mirror.uri={self.uri!r} must be a URI, for example s3://bucket/model.pt"
            raise ConfigError(msg)
        if self.every_s is not None and not 0.001 <= self.every_s < math.inf:
            msg = f"mirror.every_s={self.every_s!r} must be seconds, at least 0.001"
            raise ConfigError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleConfig:
    """One role: what its nodes run and how many there are.

    Attributes:
        entry: Function of one argument, the role's context (it travels by cloudpickle), a
            `headrace.role.RoleEntry`, or the path of a script for `runner="script"`. None for a
            runner that needs none.
        parallelism: Nodes of this role, 1 to 32,768.
        min_parallelism: With how few of them Flink's adaptive scheduler may run the job, where
            there are fewer slots, at least 1; None: with `parallelism` alone.
        runner: "function", "script", "tensorboard" (shows `options["log_dir"]`), or a subclass
            of `headrace.framework.runner.Runner`.
        args: Command-line arguments of a script, or further flags of TensorBoard.
        environment: Environment variables of the algorithm process.
        options: JSON values that the entry function finds in `ctx.options`.
        has_port: Whether each node keeps a TCP port for its process. It is there before any
            process starts, and every process finds the addresses of all nodes with ports; a
            server that sets SO_REUSEADDR, as gRPC does, can listen on it.
        gpu: "auto": each process has one of the GPUs for itself that Flink has assigned to
            its TaskManager (`external-resources: gpu`), if it has; "required": it must have;
            "none": it sees none of those. What `environment` says of CUDA_VISIBLE_DEVICES is
            left.
        exchange: Size and pace of the memory queue.
        mirror: File or directory that each process finds a copy of on its host.
        spare_after_s: In stream mode with Flink's checkpoints, a spare process with the entry
            loaded, and so its framework, stands by on the TaskManager of each process, so that
            a restart by Flink need not wait for the import. It is started when the process has
            run for so long, in seconds, and a checkpoint has completed, and takes the memory
            of the imported framework. Where fewer processes run than are planned, and there is
            a slot for another one, a second spare stands by for it. None: no spare; nor is
            there one where Flink does not restart the job (`restart-strategy.type: none`).

    Raises:
        ConfigError: A value is of a wrong type or out of its limits.
    """

    entry: Callable[..., object] | str | None = None
    parallelism: int = 1
    min_parallelism: int | None = None
    runner: Any = "function"
    args: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    has_port: bool = False
    gpu: GpuUse = "none"
    exchange: ExchangeConfig = field(default_factory=ExchangeConfig)
    mirror: MirrorConfig | None = None
    spare_after_s: float | None = 10.0

    def __post_init__(self) -> None:
        _set_count(self, "role", "parallelism", 1, 32_768)
        if self.min_parallelism is not None:
            _set_count(self, "role", "min_parallelism", 1, self.parallelism)
        entry: object = self.entry
        if entry is not None and not isinstance(entry, str) and not callable(entry):
            msg = (
                f"role.entry={entry!r} must be a function of one argument, a script path, or "
                "None for a runner without an entry"
            )
            raise ConfigError(msg)
        if self.gpu not in ("auto", "required", "none"):
            msg = f"role.gpu={self.gpu!r} must be 'auto', 'required' or 'none'"
            raise ConfigError(msg)
        if self.spare_after_s is not None and not _is_length_s(self.spare_after_s):
            msg = (
                f"role.spare_after_s={self.spare_after_s!r} must be seconds, at least 0, or "
                "None for no spare process"
            )
            raise ConfigError(msg)
        _require_texts("role.args", self.args)
        _require_texts("role.environment", [*self.environment, *self.environment.values()])


def _is_length_s(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 <= cast("float", value) < math.inf


def _require_texts(name: str, values: Iterable[object]) -> None:
    for value in values:
        if not isinstance(value, str):
            msg = f"{name} holds {value!r}; it must hold str only, try {str(value)!r}"
            raise ConfigError(msg)


def _set_count(config: Any, part: str, name: str, least: int, most: int) -> None:
    count = require_count(f"{part}.{name}", getattr(config, name), least=least, most=most)
    object.__setattr__(config, name, count)  # a NumPy integer does not travel as JSON
