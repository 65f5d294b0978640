"""Trainings with a state where shared memory is full, and then a disk: exact in the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace._environ import copy_environment

_ROOT = Path(__file__).resolve().parents[3]
_SCRIPT = """set -e
mount -t tmpfs -o size=1m tmpfs /dev/shm
mount -t tmpfs -o size=200m tmpfs "$1/disk"
mount -t tmpfs -o size=150m tmpfs "$1/store"
exec "$2" -m tests.faults.flink.kept_disks "$1/disk" "$1/store"
"""
_LIMIT_S = 280


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the job of each framework, and the log of their JVM."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces (`unshare -m`)")
    folder = tmp_path_factory.mktemp("disks")
    for name in ("disk", "store"):
        (folder / name).mkdir()
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", _SCRIPT, "bash", str(folder), sys.executable],
        cwd=_ROOT,
        env={
            **copy_environment(),
            "FLINK_LOG_DIR": str(folder),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    log = "\n".join(p.read_text() for p in folder.glob("*.log"))
    return {**json.loads(done.stdout.splitlines()[-1]), "log": log}


@pytest.mark.timeout(_LIMIT_S + 20)
@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
def test_a_training_bears_full_disks_and_counts_every_row_once(
    run: dict[str, Any], framework: str
) -> None:
    assert run[framework] == {"wrong": "", "left": []}


def test_a_state_needs_no_room_in_shared_memory(run: dict[str, Any]) -> None:
    """Queues do, and fall back to files: the states, of 10 MB each, went their own way."""
    assert "slower than shared memory: /dev/shm: 4194304 bytes needed" in run["log"]
    for framework in ("pytorch", "tensorflow"):
        assert run[framework]["wrong"] == ""
