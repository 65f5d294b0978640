"""Entry functions of jobs that are killed while a spare stands by. They travel by value."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import cloudpickle

from headrace.role import RoleEntry
from tests.waiting import pause_for

cloudpickle.register_pickle_by_value(sys.modules[__name__])


def count_until_told(folder: Path, framework: str = "") -> Any:
    """Count rows, a few at a time until the file `go` is there.

    Each process leaves a file `begun-PID` when it has handled rows, with the number of its
    first row, and whether the framework was there before the function.
    """
    directory = str(folder)

    def entry(ctx: Any) -> None:
        was_there = framework in sys.modules
        state = ctx.state
        state.setdefault("rows", 0)
        state.setdefault("sum", 0)
        is_first = True
        for batch in ctx.batches(rows=16):
            numbers = batch["id"].tolist()
            state["rows"] += len(numbers)
            state["sum"] += sum(numbers)
            ctx.report(count=state["rows"], sum=state["sum"])
            if is_first:
                draft = Path(directory, f".begun-{os.getpid()}")
                draft.write_text(f"{numbers[0]} {int(was_there)}")
                draft.replace(Path(directory, f"begun-{os.getpid()}"))
                is_first = False
            if not Path(directory, "go").exists():
                pause_for(0.1)

    return entry


class NotAhead(RoleEntry):
    """An entry that cannot be loaded before its process knows whose it is."""

    def preload(self) -> None:
        """Fail."""
        msg = "not ahead"
        raise ImportError(msg)


def begun(folder: Path) -> dict[int, tuple[int, bool]]:
    """Return the processes that have handled rows, in order, with their notes."""
    files = sorted(folder.glob("begun-*"), key=lambda path: path.stat().st_mtime_ns)
    notes = {int(path.name.partition("-")[2]): path.read_text().split() for path in files}
    return {pid: (int(first), was_there == "1") for pid, (first, was_there) in notes.items()}
