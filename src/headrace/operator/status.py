"""What a running job says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

__all__ = ["JobStatus", "NodeStatus"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """One node as the master saw it last.

    Attributes:
        state: For example "running" or "finished".
        host: Where it runs.
        attempt: The group attempt it belongs to.
        rows_in: Rows that its process has taken from Flink.
        rows_out: Rows that its process has emitted.
        report: The latest values of `ctx.report`.
    """

    state: str
    host: str = ""
    attempt: int = 0
    rows_in: int = 0
    rows_out: int = 0
    report: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """The ML cluster of a job as its master saw it last.

    Attributes:
        state: State of the master's machine; "STARTING" until it has said anything.
        attempt: Number of the group's start, from 1.
        restarts: Group restarts inside the present deployment.
        registered: Nodes that have registered.
        expected: Nodes that there will be; None until the first node of every role has said it.
        reason: Why it stops, failed or finished; None before.
        nodes: Per node name, for example "worker-0".
    """

    state: str = "STARTING"
    attempt: int = 0
    restarts: int = 0
    registered: int = 0
    expected: int | None = None
    reason: str | None = None
    nodes: Mapping[str, NodeStatus] = field(default_factory=dict)

    @classmethod
    def from_json(cls, text: str) -> JobStatus:
        """Read the master's status object (docs/lifecycle.md, section 4).

        Unknown fields are left out.
        """
        raw: dict[str, Any] = json.loads(text) if text else {}
        nodes = {
            name: NodeStatus(**_known(NodeStatus, node))
            for name, node in raw.get("nodes", {}).items()
        }
        return cls(**{**_known(cls, raw), "nodes": nodes})

    @property
    def rows_in(self) -> int:
        """Rows that all processes together have taken from Flink."""
        return sum(node.rows_in for node in self.nodes.values())

    def mean(self, name: str) -> float | None:
        """Mean of a reported value over the nodes that report it; None if no node does."""
        values = [node.report[name] for node in self.nodes.values() if name in node.report]
        return sum(values) / len(values) if values else None


def _known(cls: type[JobStatus | NodeStatus], raw: Mapping[str, Any]) -> dict[str, Any]:
    names = {each.name for each in fields(cls)}
    return {key: value for key, value in raw.items() if key in names and value is not None}
