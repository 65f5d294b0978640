"""What a job says about itself: docs/lifecycle.md, section 4."""

from __future__ import annotations

import msgspec

__all__ = ["JobStatus", "NodeStatus"]


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One node as the master saw it last.

    Attributes:
        state: "registered", "running", "finished", "failed", "stopped" or "lost".
        host: Where it runs.
        address: "host:port", where its process may listen; None if its role has no port.
        url: What a browser can open there, such as TensorBoard; None if there is nothing.
        attempt: The group attempt that this is about.
        life: How often its process was started again alone within this attempt.
        rows_in: Rows that its process has taken from Flink.
        rows_out: Rows that its process has emitted.
        progress: Grows while its process gets on: with every batch of every pass, step and
            report; 0 until its entry function is called.
        report: The latest values of `ctx.report`.
    """

    state: str
    host: str = ""
    address: str | None = None
    url: str | None = None
    attempt: int = 0
    life: int = 0
    rows_in: int = 0
    rows_out: int = 0
    progress: int = 0
    report: dict[str, float] = {}


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The ML cluster of a job as its master saw it last; `JobHandle.status()` returns it.

    Attributes:
        state: State of the master's machine; "GATHERING" until it has said anything, and
            "STARTING" until the job's coordinator has.
        attempt: Number of the group's start, from 1; 0 until the master has said anything.
        restarts: Group restarts so far.
        registered: Nodes that have registered.
        expected: Nodes that there will be; None until the first node of every role has said it.
        missing: The first of those that are not there, or not any more, 10 at most; "role-*"
            where no node of a role has said how many there are.
        reason: Why the job recovers, stops or has ended; None while it runs.
        savepoint_wish: Why the job is to be stopped with a savepoint, and who wants it:
            `ctx.stop_job(reason, savepoint=True)`; None if nobody does.
        nodes: Every node that has registered, by name, for example "worker-0".
    """

    state: str = "STARTING"
    attempt: int = 0
    restarts: int = 0
    registered: int = 0
    expected: int | None = None
    missing: tuple[str, ...] = ()
    reason: str | None = None
    savepoint_wish: str | None = None
    nodes: dict[str, NodeStatus] = {}

    @classmethod
    def from_json(cls, text: str) -> JobStatus:
        """Read what the am's coordinator answers. Unknown fields are left out.

        Raises:
            msgspec.DecodeError: It is no status.
        """
        return msgspec.json.decode(text, type=cls) if text else cls()

    @property
    def rows_in(self) -> int:
        """Rows that all processes together have taken from Flink."""
        return sum(node.rows_in for node in self.nodes.values())

    def mean(self, name: str) -> float | None:
        """Mean of a reported value over the nodes that report it; None if no node does."""
        values = [node.report[name] for node in self.nodes.values() if name in node.report]
        return sum(values) / len(values) if values else None
