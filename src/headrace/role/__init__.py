"""What runs inside an algorithm process: the context of an entry function, for any framework.

Imports `headrace.exchange`; nothing of Flink, and no deep-learning framework.
"""

from __future__ import annotations

from headrace.role.arrays import NullRule, to_numpy
from headrace.role.context import RoleContext
from headrace.role.entry import RoleEntry
from headrace.role.link import RoleLink
from headrace.role.reader import (
    BatchReader,
    EpochEnded,
    Idle,
    InputEnded,
    PollResult,
    ReadyBatch,
)
from headrace.role.spec import RoleSpec

__all__ = [
    "BatchReader",
    "EpochEnded",
    "Idle",
    "InputEnded",
    "NullRule",
    "PollResult",
    "ReadyBatch",
    "RoleContext",
    "RoleEntry",
    "RoleLink",
    "RoleSpec",
    "to_numpy",
]
