"""Signals at TaskManagers of a real cluster while a job runs on them."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from tests.faults.flink.drill import run_drill
from tests.faults.flink.plan import SIGNALS, Mode, Moment, Target, pairwise
from tests.faults.flink.task_managers import task_managers

_SEED = 1


@pytest.mark.long  # tests/flink/test_standalone_faults.py loses a TaskManager in CI
@pytest.mark.timeout(240)
def test_a_job_survives_its_task_managers_and_they_leave_nothing_behind() -> None:
    faults = pairwise(_SEED, (Target.TASK_MANAGER,))[: len(Moment)]
    assert {fault.moment for fault in faults} == set(Moment)
    assert {fault.signal for fault in faults} == set(SIGNALS)
    assert {fault.mode for fault in faults} == set(Mode)
    with (
        tempfile.TemporaryDirectory(prefix="tm-") as folder,
        task_managers(Path(folder)) as cluster,
    ):
        for fault in faults:
            cluster.bring_to(2)
            run_drill(fault, cluster)
