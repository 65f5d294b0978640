"""Entry functions that keep a state in Flink's checkpoints, and die on purpose.

They travel by value.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle
import numpy as np
import torch
from torch import nn

from tests.waiting import pause_for

cloudpickle.register_pickle_by_value(sys.modules[__name__])

MODULUS = 2**61 - 1
STATE_FILE = "memfd:headrace-state"
Made: TypeAlias = tuple[nn.Module, torch.optim.Optimizer]


class Killer:
    """Kills its process some times, each when two checkpoints have been taken since it began.

    Call `begin` before the rows and `look` after each batch. The file of a checkpoint is there
    before it counts; that of the next one is not.

    Args:
        folder: Where a mark of each death is left.
        checkpoints: Flink's directory for checkpoints.
        times: How many deaths.
    """

    def __init__(self, folder: Path, checkpoints: Path, times: int) -> None:
        self.folder = str(folder)
        self.checkpoints = str(checkpoints)
        self.times = times

    def begin(self) -> None:
        self.before = self.taken()
        self.seen: set[str] = set()
        self.deaths = len(list(Path(self.folder).glob("death-*")))

    def taken(self) -> set[str]:
        found = Path(self.checkpoints).glob("*/chk-*/_metadata")
        return {str(path.parent) for path in found}

    def look(self) -> None:
        if self.deaths < self.times:
            pause_for(0.03)  # else the rows are used up before there are checkpoints
        self.seen |= self.taken() - self.before
        if len(self.seen) > 1 and self.deaths < self.times:
            Path(self.folder, f"death-{self.deaths}").touch()
            os.kill(os.getpid(), signal.SIGKILL)


class Turns:
    """Kills one worker after the other, each when it has had checkpoints."""

    def __init__(self, killer: Killer, *ranks: int) -> None:
        self.killer = killer
        self.ranks = ranks

    def begin(self, ctx: Any) -> None:
        self.killer.begin()

    def look(self, ctx: Any) -> None:
        deaths = self.killer.deaths
        if deaths < self.killer.times and ctx.rank == self.ranks[deaths % len(self.ranks)]:
            self.killer.look()
        elif deaths < self.killer.times:
            pause_for(0.03)


def count_rows(killer: Killer | None = None) -> Any:
    """Emit each row with the count and the checksum of all rows up to it."""

    def entry(ctx: Any) -> None:
        state = ctx.state
        state.setdefault("rows", 0)
        state.setdefault("checksum", 0)
        if killer is not None:
            killer.begin()
        for batch in ctx.batches(rows=16):
            counts, sums = [], []
            for number in batch["id"].tolist():
                state["rows"] += 1
                state["checksum"] = (state["checksum"] * 31 + number) % MODULUS
                counts.append(state["rows"])
                sums.append(state["checksum"])
            ctx.emit({"id": batch["id"], "count": counts, "checksum": sums})
            ctx.report(count=state["rows"])
            if killer is not None:
                killer.look()

    return entry


def expected_counts(rows: int) -> list[tuple[int, int, int]]:
    """What `count_rows` emits for the rows from 1 on."""
    found, checksum = [], 0
    for number in range(1, rows + 1):
        checksum = (checksum * 31 + number) % MODULUS
        found.append((number, number, checksum))
    return found


def seed_all() -> None:
    """Set the generators that `build` and `step` draw from."""
    random.seed(11)
    np.random.seed(11)
    torch.manual_seed(11)


def build() -> Made:
    seed_all()
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 1))
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    """Train on one row, whatever the batch that it came in.

    Python's and NumPy's generators add noise, and dropout draws from torch's.
    """
    x = torch.tensor([[number % 7 / 7.0 + random.random(), number % 11 / 11.0]])
    optimizer.zero_grad()
    loss: Any = ((model(x) - number % 13 / 13.0 - np.random.random()) ** 2).mean()
    loss.backward()
    optimizer.step()


def trained_on(rows: int) -> dict[str, torch.Tensor]:
    """Return the weights of an undisturbed training on the rows from 1 on."""
    model, optimizer = build()
    for number in range(1, rows + 1):
        step(model, optimizer, number)
    return model.state_dict()


def train_on_rows(killer: Killer, make: Callable[[], Made] = build) -> Any:
    """Train on one row at a time, with dropout and noise."""

    def entry(ctx: Any) -> None:
        torch.set_num_threads(1)
        model, optimizer = make()
        ctx.checkpointed(model=model, optimizer=optimizer)
        ctx.data_parallel(model, optimizer)
        killer.begin()
        for batch in ctx.batches(rows=16):
            for number in batch["id"].tolist():
                step(model, optimizer, number)
            killer.look()
        ctx.report(steps=ctx.steps)
        ctx.save(model)

    return entry


def hold(size_bytes: int, killer: Killer | None) -> Any:
    """Keep a large array, of which a few values change with each row."""

    def entry(ctx: Any) -> None:
        if "large" not in ctx.state:
            ctx.state["large"] = np.arange(size_bytes // 8)
            ctx.state["rows"] = 0
        if killer is not None:
            killer.begin()
        for batch in ctx.batches(rows=16):
            for number in batch["id"].tolist():
                ctx.state["rows"] += 1
                ctx.state["large"][number] += number
            if killer is not None:
                killer.look()
        large = ctx.state["large"]
        numbers = np.arange(1, ctx.state["rows"] + 1)
        expected = np.arange(size_bytes // 8)
        expected[numbers] += numbers
        ctx.report(rows=ctx.state["rows"], wrong=int((large != expected).sum()))

    return entry


def watch_files(checkpoints: Path, at_least: int) -> Any:
    """Count the state files that this process has open, for so many checkpoints."""
    folder = str(checkpoints)

    def entry(ctx: Any) -> None:
        ctx.state["large"] = np.zeros(200_000)
        most = 0
        first: int | None = None
        last = 0
        for batch in ctx.batches(rows=16):
            ctx.state["large"] += len(batch["id"])
            open_now = open_files()
            most = max(most, sum(STATE_FILE in name for name in open_now))
            for path in Path(folder).glob("*/chk-*/_metadata"):
                last = max(last, int(path.parent.name.removeprefix("chk-")))
            if last >= 5 and first is None:
                first = len(open_now)
            ctx.report(most=most, checkpoints=last, first=first or 0, files=len(open_now))
            if last >= at_least:
                ctx.stop_job("seen enough")
                break

    return entry


def count_files_before_a_checkpoint(size_bytes: int) -> Any:
    """Say how many state files this process has some rows after the first ones."""

    def entry(ctx: Any) -> None:
        ctx.state["large"] = np.zeros(size_bytes // 8)
        for number, _ in enumerate(ctx.batches(rows=16)):
            if number == 3:
                pause_for(0.5)
                ctx.report(files=count_state_files())

    return entry


def count_state_files() -> int:
    """Return how many this process has, however many descriptors stand for each."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if STATE_FILE in str(path.readlink()):
                found.add(path.stat().st_ino)
    return len(found)


def open_files() -> list[str]:
    """Return what the descriptors of this process stand for."""
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            found.append(str(path.readlink()))
    return found


def be_slow_once(folder: Path, seconds: float) -> Any:
    """Count rows; one batch takes longer than a checkpoint may."""
    mark = str(folder / "slow")

    def entry(ctx: Any) -> None:
        ctx.state.setdefault("rows", 0)
        for batch in ctx.batches(rows=16):
            ctx.state["rows"] += len(batch["id"])
            if ctx.state["rows"] > 500 and not Path(mark).exists():
                Path(mark).touch()
                pause_for(seconds)
        ctx.report(rows=ctx.state["rows"])

    return entry
