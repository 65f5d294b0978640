"""Trainings with a state that run out of room; run in a mount namespace of its own.

`python -m tests.faults.flink.kept_disks DISK STORE`: /dev/shm has next to no room, DISK (for
Flink's temporary files) and STORE (for its checkpoints) are small file systems. Prints what the
job of each framework came to, as JSON. A state has 10 MB more than the model.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from headrace.errors import HeadraceError
from tests.faults.chaos.jobs import Case
from tests.faults.flink.ordeal import Blow, Ordeal, open_ordeal
from tests.faults.flink.sight import files_left
from tests.flink.jvm import one_jvm

cloudpickle.register_pickle_by_value(sys.modules[__name__])

_NUMBERS = 1_250_000  # of 8 bytes
_LEAVES_BYTES = 4 << 20  # enough for work directories, too little for a state
_CASES = [Case("pytorch", 2, 32_000, 100_000), Case("tensorflow", 1, 16_000, 100_000)]


class Filling:
    """A file that takes all that is free but so many bytes, whenever it is asked to."""

    def __init__(self, folder: Path, leaves_bytes: int) -> None:
        self._path = folder / "fill"
        self._leaves_bytes = leaves_bytes

    def __enter__(self) -> Filling:
        self._file = self._path.open("wb", buffering=0)
        self.top_up()
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()
        self._path.unlink()

    def top_up(self) -> None:
        """Take what has become free."""
        place = os.statvfs(self._path)
        free_bytes = place.f_bavail * place.f_frsize
        with contextlib.suppress(OSError):  # somebody else was quicker
            self._file.write(bytes(max(0, free_bytes - self._leaves_bytes)))


def carry(ctx: Any) -> None:
    """Keep a large array in the state, and look at all of it after each step."""
    import numpy as np

    if "ballast" not in ctx.state:
        ctx.state["ballast"] = np.arange(_NUMBERS)
    total = int(ctx.state["ballast"].sum())
    if total != _NUMBERS * (_NUMBERS - 1) // 2:
        msg = f"the ballast has become {total}"
        raise ValueError(msg)


def full_store(store: Path) -> Blow:
    """Checkpoints fail, the training goes on, and later ones complete."""

    def strike(ordeal: Ordeal) -> None:
        failed, steps = ordeal.view.failed_checkpoints(), _steps(ordeal)
        with Filling(store, 0) as filling:

            def seen() -> bool:
                filling.top_up()
                return ordeal.view.failed_checkpoints() > failed + 1

            ordeal.until(seen, "checkpoints to fail")
            ordeal.until(lambda: _steps(ordeal) > steps + 10, "steps beside that")

    return Blow(name="no room for checkpoints", strike=strike, cause=None)


def full_tmp(disk: Path) -> Blow:
    """There is no room to restore the state; once there is, the job goes on from it."""

    def strike(ordeal: Ordeal) -> None:
        with Filling(disk, _LEAVES_BYTES) as filling:
            os.kill(ordeal.process(0), signal.SIGKILL)

            def seen() -> bool:
                filling.top_up()
                return any("No room for the state" in each for each in ordeal.view.failures())

            ordeal.until(seen, "a restore to fail")

    cause = r"No room for the state of 1\d{7} bytes that a process .*`io\.tmp\.dirs`"
    return Blow(name="no room for the restored state", strike=strike, cause=cause)


def _steps(ordeal: Ordeal) -> int:
    return sum(ordeal.steps_by_pid().values())


def run(case: Case, disk: Path, store: Path) -> dict[str, Any]:
    """Return what became of a job: what was wrong, and what is left of it."""
    wrong = ""
    try:
        with open_ordeal(case, on_step=carry, tmp=disk, store=store) as ordeal:
            for blow in (full_store(store), full_tmp(disk)):
                ordeal.bear(blow)
            ordeal.finish()
    except (AssertionError, HeadraceError, pytest.fail.Exception):
        wrong = traceback.format_exc()
    left = [path for path in files_left(disk) if path.startswith(str(disk))]
    return {"wrong": wrong, "left": left}


def main(disk: Path, store: Path) -> None:
    """Run the jobs one after the other in one JVM: none of them may end it."""
    with one_jvm():
        found = {case.framework: run(case, disk, store) for case in _CASES}
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
