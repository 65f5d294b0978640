"""What runs inside an algorithm process: the context of an entry function, for any framework.

Imports `headrace.exchange` and `headrace.framework`; nothing of Flink or of a deep-learning
framework.
"""

from __future__ import annotations

from headrace.role.arrays import NullRule, to_numpy
from headrace.role.cause import let_the_cause_go_first
from headrace.role.context import RoleContext
from headrace.role.door import Door, DoorClosedError
from headrace.role.emission import to_columns
from headrace.role.entry import RoleEntry
from headrace.role.exports import Servable
from headrace.role.held_out import HELD_OUT
from headrace.role.link import RoleLink
from headrace.role.listening import open_listener
from headrace.role.output_dir import path_below, put_in_place, replacing, require_writable
from headrace.role.polled import EpochEnded, InputEnded, PollResult, ReadyBatch
from headrace.role.reader import BatchReader
from headrace.role.reporting import REPORT_EVERY_S, wait_patiently
from headrace.role.restored import require_not_restored
from headrace.role.settings import TrainingSettings
from headrace.role.threads import choose_threads
from headrace.role.training import TrainingContext

__all__ = [
    "HELD_OUT",
    "REPORT_EVERY_S",
    "BatchReader",
    "Door",
    "DoorClosedError",
    "EpochEnded",
    "InputEnded",
    "NullRule",
    "PollResult",
    "ReadyBatch",
    "RoleContext",
    "RoleEntry",
    "RoleLink",
    "Servable",
    "TrainingContext",
    "TrainingSettings",
    "choose_threads",
    "let_the_cause_go_first",
    "open_listener",
    "path_below",
    "put_in_place",
    "replacing",
    "require_not_restored",
    "require_writable",
    "to_columns",
    "to_numpy",
    "wait_patiently",
]
