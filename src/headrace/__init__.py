"""Deep learning inside Apache Flink jobs.

Importing this package is cheap: neither Flink nor a deep-learning framework is imported before
a name that needs it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from headrace.config import AMConfig, ExchangeConfig, RoleConfig, TimeoutConfig
from headrace.errors import (
    CollectiveError,
    ConfigError,
    DataError,
    ExchangeError,
    HeadraceError,
    IllegalTransitionError,
    JobFailedError,
    JobManagerLostError,
    MasterLostError,
    NodeLostError,
    PeerLostError,
    PlanError,
    ProtocolError,
    RowTooLargeError,
    ServerLostError,
    StopError,
    UsageError,
    UserCodeError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from headrace import pytorch, tensorflow, testing
    from headrace.operator import Cluster, JobHandle, JobResult, JobStatus

__version__ = "0.1.0"

__all__ = [
    "AMConfig",
    "Cluster",
    "CollectiveError",
    "ConfigError",
    "DataError",
    "ExchangeConfig",
    "ExchangeError",
    "HeadraceError",
    "IllegalTransitionError",
    "JobFailedError",
    "JobHandle",
    "JobManagerLostError",
    "JobResult",
    "JobStatus",
    "MasterLostError",
    "NodeLostError",
    "PeerLostError",
    "PlanError",
    "ProtocolError",
    "RoleConfig",
    "RowTooLargeError",
    "ServerLostError",
    "StopError",
    "TimeoutConfig",
    "UsageError",
    "UserCodeError",
    "WaitTimeoutError",
    "__version__",
    "pytorch",
    "tensorflow",
    "testing",
]

_MODULES = ("pytorch", "tensorflow", "testing")
_FROM_OPERATOR = ("Cluster", "JobHandle", "JobResult", "JobStatus")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"headrace.{name}")
    if name in _FROM_OPERATOR:
        return getattr(importlib.import_module("headrace.operator"), name)
    msg = f"module 'headrace' has no attribute {name!r}"
    raise AttributeError(msg)
