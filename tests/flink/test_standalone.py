"""Jobs on a real standalone cluster with two TaskManagers, started from the pip package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .standalone import Standalone, standalone_cluster

_PROGRAM = Path(__file__).with_name("standalone_job.py")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    with standalone_cluster(tmp_path_factory.mktemp("standalone")) as running:
        yield running


@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["flink run", "python"])
def test_a_program_runs_on_both_task_managers(
    cluster: Standalone, tmp_path: Path, how: str
) -> None:
    rows = 100_000
    results = tmp_path / "results"
    start = [sys.executable] if how == "python" else [*cluster.run_command(), "-py"]
    command = [*start, str(_PROGRAM), results.as_uri(), str(rows)]
    jobs_before = cluster.finished_jobs()
    done = subprocess.run(
        command,
        env={**cluster.environment(), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr[-5000:] + cluster.logs()[-5000:]
    printed = [each for each in done.stdout.splitlines() if each.startswith("{")]
    summary = json.loads(printed[-1])
    assert summary == {"state": "FINISHED", "rows_in": rows}
    parts = [json.loads(p.read_text()) for p in results.rglob("part-*") if p.stat().st_size]
    assert sorted(part["worker"] for part in parts) == [0, 1, 2, 3]
    assert sum(part["n"] for part in parts) == rows
    assert sum(part["total"] for part in parts) == rows * (rows + 1) // 2
    logs = [p for p in cluster.log_dir.glob("*taskexecutor*.log") if " starts" in p.read_text()]
    assert len(logs) == 2, "each TaskManager runs workers and logs what they print"
    assert cluster.finished_jobs() == jobs_before + 1, "the job ran there and nowhere else"
