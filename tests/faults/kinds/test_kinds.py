"""The smallest part of what `make kinds` does: one TaskManager is killed."""

from __future__ import annotations

import random

import pytest

from tests.faults.kinds.kinds import TASK_MANAGER_KILLED
from tests.faults.kinds.measure import measure_kinds


@pytest.mark.long  # a cluster of six JVMs
@pytest.mark.timeout(600)
def test_the_loss_of_a_task_manager_is_timed_beside_that_of_flink_alone() -> None:
    figures = measure_kinds([TASK_MANAGER_KILLED], random.Random(1), repeats=1)
    (found,) = figures["kinds"].values()
    assert found["recovery_s"]["repeats"] == found["flink_alone_s"]["repeats"] == 1
    assert 0 < found["source_runs_s"]["max"] < found["recovery_s"]["max"]
    assert found["flink_alone_s"]["max"] > 0
    assert figures["left_out"] == {}
    assert all(bar["is_met"] for bar in figures["bars"].values())
