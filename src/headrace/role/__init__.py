"""What runs inside an algorithm process: the context of an entry function, for any framework.

Imports `headrace.exchange` and `headrace.framework`; nothing of Flink or of a deep-learning
framework.
"""

from __future__ import annotations

from headrace.role.arrays import NullRule, to_numpy
from headrace.role.context import RoleContext
from headrace.role.entry import RoleEntry
from headrace.role.link import RoleLink
from headrace.role.output_dir import path_below, replacing, require_writable
from headrace.role.polled import EpochEnded, InputEnded, PollResult, ReadyBatch
from headrace.role.reader import BatchReader
from headrace.role.reporting import REPORT_EVERY_S, wait_patiently

__all__ = [
    "REPORT_EVERY_S",
    "BatchReader",
    "EpochEnded",
    "InputEnded",
    "NullRule",
    "PollResult",
    "ReadyBatch",
    "RoleContext",
    "RoleEntry",
    "RoleLink",
    "path_below",
    "replacing",
    "require_writable",
    "to_numpy",
    "wait_patiently",
]
