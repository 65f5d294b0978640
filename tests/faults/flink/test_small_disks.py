"""Where shared memory or the disk is full: a slower way, or an error that helps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headrace._environ import copy_environment

from .small_disks import ROWS

pytestmark = pytest.mark.timeout(300)  # whichever is first waits for all the jobs
_ROOT = Path(__file__).resolve().parents[3]
_SCRIPT = """set -e
mount -t tmpfs -o size=1m tmpfs /dev/shm
mount -t tmpfs -o size=200m tmpfs "$1/disk"
exec "$2" -m tests.faults.flink.small_disks "$1/disk"
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The jobs' results and the log of their JVM."""
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount namespaces (`unshare -m`)")
    folder = tmp_path_factory.mktemp("disks")
    (folder / "disk").mkdir()
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
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    log = "\n".join(p.read_text() for p in folder.glob("*.log"))
    return {**json.loads(done.stdout.splitlines()[-1]), "log": log}


def test_segments_without_room_in_shared_memory_are_files_and_the_rows_are_right(
    run: dict[str, Any],
) -> None:
    assert run["files"] == {"total": ROWS * (ROWS + 1)}  # two passes
    assert "which is slower than shared memory: /dev/shm: 16777216 bytes needed" in run["log"]


def test_without_room_for_the_segments_the_error_names_places_and_settings(
    run: dict[str, Any],
) -> None:
    cause = run["no segments"]["cause"]
    assert "No room for a memory queue of 16777216 bytes" in cause
    assert "`exchange.slots`=8" in cause
    assert "/dev/shm: 16777216 bytes needed" in cause
    assert "/disk: 16777216 bytes needed" in cause


def test_without_room_for_the_spool_the_error_names_it_and_the_epochs(
    run: dict[str, Any],
) -> None:
    cause = run["no spool"]["cause"]
    assert "worker-0" in cause
    assert "spool.arrow" in cause
    assert "No space left on device" in cause
    assert "io.tmp.dirs" in cause
    assert "epochs=1" in cause


def test_on_a_full_disk_the_error_names_the_directory_and_the_setting(
    run: dict[str, Any],
) -> None:
    cause = run["full"]["cause"]
    assert "/disk" in cause
    assert "No space left on device" in cause
    assert "`io.tmp.dirs`" in cause


def test_nothing_is_left_where_there_was_no_room(run: dict[str, Any]) -> None:
    assert run["left"] == []
