"""A few kills of what `make chaos` does at random, one of each kind."""

from __future__ import annotations

import random
import signal
import tempfile
from pathlib import Path

import pytest

from tests.faults.chaos.jobs import Case, Places, submit
from tests.faults.chaos.jvm_log import JvmLog
from tests.faults.chaos.kills import Victims
from tests.faults.chaos.proof import require_exact
from tests.faults.chaos.traces import require_nothing_left
from tests.faults.flink.ordeal import hinder

CASE = Case("pytorch", 1, rows=16_000, rows_per_s=100_000)  # 100 s of slow steps


@pytest.mark.timeout(300)
def test_kills_of_each_kind_leave_an_exact_result_and_nothing_else() -> None:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        places = Places(Path(folder))
        log = JvmLog()
        job = submit(CASE, places, on_step=hinder(folder, None))
        try:
            victims = Victims(job, places, CASE.workers, random.Random(1), log)
            kills = [
                victims.kill_one("process", signal.SIGKILL),
                victims.kill_one("spare", signal.SIGKILL),
                victims.kill_one("master", signal.SIGKILL),
                victims.kill_one("node", signal.SIGSEGV),
            ]
            (places.folder / "go").touch()
            require_exact(CASE, job, places)
        except BaseException:
            job.cancel()
            raise
        require_nothing_left(places)
    assert [each.kind for each in kills if each.recovery_s] == ["process", "master", "node"]
