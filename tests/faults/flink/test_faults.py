"""Signals at master, nodes and processes of real jobs: a short selection with a fixed seed.

`make faults-long` draws many more.
"""

from __future__ import annotations

import signal

import pytest

from tests.faults.flink.drill import run_drill
from tests.faults.flink.plan import Ending, Fault, Mode, Moment, Target, pairwise

_SEED = 1
_FOUND_BEFORE = [
    Fault(  # the new master's address waited in the control stream, behind a full queue
        mode=Mode.STREAM,
        target=Target.MASTER,
        signal=signal.SIGKILL,
        moment=Moment.GATHERING,
        ending=Ending.RECOVER,
    ),
]
_FROZEN_FOR_GOOD = [
    Fault(
        mode=mode,
        target=Target.PROCESS,
        signal=signal.SIGSTOP,
        moment=Moment.MIDDLE,
        ending=Ending.RECOVER,
    )
    for mode in Mode
]


@pytest.mark.parametrize(
    "fault", [*pairwise(_SEED), *_FOUND_BEFORE, *_FROZEN_FOR_GOOD], ids=str
)
def test_a_fault_leaves_nothing_behind_and_no_row_is_lost_or_doubled(fault: Fault) -> None:
    run_drill(fault)
