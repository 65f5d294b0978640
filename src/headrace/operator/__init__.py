"""ML operator: plans an application master and roles as Flink operators.

The only package that imports pyflink.
"""

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
