"""Signals at master, nodes and processes of real jobs: a short selection with a fixed seed.

`make faults-long` draws many more.
"""

from __future__ import annotations

import pytest

from tests.faults.flink.drill import run_drill
from tests.faults.flink.plan import Fault, pairwise

_SEED = 1


@pytest.mark.parametrize("fault", pairwise(_SEED), ids=str)
def test_a_fault_leaves_nothing_behind_and_no_row_is_lost_or_doubled(fault: Fault) -> None:
    run_drill(fault)
