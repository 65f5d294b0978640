"""ML operator: plans an application master and roles as Flink operators.

The only package that imports pyflink, and only when a name that needs it is used: processes
that plan nothing may import `headrace.operator.training`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.framework.status import JobStatus, NodeStatus
    from headrace.operator.chained import chained_role
    from headrace.operator.cluster import Cluster
    from headrace.operator.handle import JobHandle, JobResult
    from headrace.operator.streams import environment_of

__all__ = [
    "Cluster",
    "JobHandle",
    "JobResult",
    "JobStatus",
    "NodeStatus",
    "chained_role",
    "environment_of",
]

_HOMES = {
    "Cluster": "headrace.operator.cluster",
    "JobHandle": "headrace.operator.handle",
    "JobResult": "headrace.operator.handle",
    "JobStatus": "headrace.framework.status",
    "NodeStatus": "headrace.framework.status",
    "chained_role": "headrace.operator.chained",
    "environment_of": "headrace.operator.streams",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    msg = f"module 'headrace.operator' has no attribute {name!r}"
    raise AttributeError(msg)
