"""One role of a group without Flink, and how its processes have ended."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.config import TimeoutConfig
from headrace.errors import ConfigError
from headrace.framework.process import ProcessSpec

__all__ = ["LOCAL_HOST", "LocalResult", "LocalRole", "build_local_specs", "require_decider"]

LOCAL_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalRole:
    """What the processes of one role run, and how many there are.

    Attributes:
        entry: Function of `spec` and `link`; it travels by cloudpickle.
        parallelism: Number of processes.
        is_deciding: Whether the group lasts until the processes of this role have ended. Those
            of a role that does not decide are stopped then, which is a success.
        has_port: Whether each process has a TCP port that is kept for it, as in
            `RoleConfig.has_port`.
        queue_sockets: Path of each process' memory queue, by index; None without queues.
        options: What the processes find in `spec.options`; one mapping for all.
        environment: Environment variables of the processes, over those of the group.
    """

    entry: Callable[..., object]
    parallelism: int = 1
    is_deciding: bool = True
    has_port: bool = False
    queue_sockets: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResult:
    """How one process has ended with success.

    Attributes:
        node: Its name, for example "worker-0".
        values: What it has reported last.
        rows_in: Rows that it has taken, as it reported last.
        rows_out: Rows that it has emitted, as it reported last.
        was_stopped: Whether it was ended by the group: another process asked to stop the job,
            or those that decide have ended.
    """

    node: str
    values: Mapping[str, float]
    rows_in: int
    rows_out: int
    was_stopped: bool


def require_decider(roles: Mapping[str, LocalRole]) -> None:
    """Refuse a group that would never end.

    Raises:
        ConfigError: No role decides when the group ends.
    """
    if not any(role.is_deciding for role in roles.values()):
        msg = (
            f"No role of {sorted(roles)} decides when the group ends, so it never would; give "
            "one is_deciding=True"
        )
        raise ConfigError(msg)


def build_local_specs(
    roles: Mapping[str, LocalRole],
    *,
    ports: Mapping[str, tuple[int, ...]],
    attempt: int,
    checkpoint_dir: str | None,
    timeouts: TimeoutConfig,
) -> list[ProcessSpec]:
    """Return the facts for each process, role by role; without the paths of its files.

    Args:
        roles: The roles, by name.
        ports: Ports of the processes of each role with `has_port`, by index.
        attempt: Number of the group's start.
        checkpoint_dir: What the processes find in `spec.checkpoint_dir`.
        timeouts: Limits on every wait.
    """
    cluster = {name: (LOCAL_HOST,) * role.parallelism for name, role in roles.items()}
    return [
        ProcessSpec(
            job_name="local",
            role=name,
            index=index,
            parallelism=role.parallelism,
            attempt=attempt,
            cluster=cluster,
            ports=dict(ports),
            host=LOCAL_HOST,
            port=ports[name][index] if name in ports else None,
            queue_socket=None if role.queue_sockets is None else role.queue_sockets[index],
            work_dir="",
            payload_path="",
            checkpoint_dir=checkpoint_dir,
            options=dict(role.options),
            timeouts=timeouts,
        )
        for name, role in roles.items()
        for index in range(role.parallelism)
    ]
