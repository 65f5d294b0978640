"""A training whose state is in Flink's checkpoints, and the blows that it gets."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from typing import Any

import cloudpickle
import pytest

from headrace.config import TimeoutConfig
from headrace.errors import JobFailedError
from tests.faults.chaos.jobs import Case, OnStep, Places, submit
from tests.faults.chaos.proof import require_exact
from tests.faults.flink.sight import JobView, Member, members, traces
from tests.flink.system import Process, descendants
from tests.ports import free_ports
from tests.waiting import until

__all__ = ["Blow", "Ordeal", "hinder", "killed", "open_ordeal"]

cloudpickle.register_pickle_by_value(sys.modules[__name__])

_CHECKPOINT_S = 4
"""Longest checkpoint: its barrier may wait behind rows that a frozen process does not take."""
_TIMEOUTS = TimeoutConfig(
    heartbeat_every_s=0.5,
    heartbeat_timeout_s=10.0,  # a process may be frozen until a checkpoint has failed
    master_lost_timeout_s=10.0,
    collective_timeout_s=40.0,
)
_LOG = logging.getLogger(__name__)
_PAUSE_S = 0.1  # after each step until the last blow has fallen, or the rows are used up before
_LIMIT_S = 90.0
_CLEAN_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Blow:
    """Something bad that happens to a job.

    Attributes:
        name: What it is.
        strike: Does it.
        cause: Pattern of the cause that Flink must name when it restarts the job for it; None
            if nothing may be restarted.
    """

    name: str
    strike: Callable[[Ordeal], None]
    cause: str | None


class Ordeal:
    """One job under blows.

    Args:
        case: What kind of job.
        folder: Where it leaves what.
        on_step: What its workers do after each step beside the rest.
        tmp: Flink's temporary directory; in `folder` by default.
        store: Directory for the checkpoints; in `folder` by default.

    Attributes:
        folder: Where it leaves what, and takes orders from: `go` lets it run to its end.
        case: What kind of job.
        job: Its handle.
        view: What Flink tells of it.
    """

    def __init__(
        self,
        case: Case,
        folder: Path,
        *,
        on_step: OnStep | None = None,
        tmp: Path | None = None,
        store: Path | None = None,
    ) -> None:
        self.folder = folder
        self.case = case
        self._places = Places(folder)
        self._tmp = tmp or folder / "tmp"
        self._tmp.mkdir(exist_ok=True)
        if store is not None:
            self._places.checkpoints.symlink_to(store)
        self._before = traces(self._tmp)
        (port,) = free_ports(1)
        self.job = submit(
            case,
            self._places,
            name="ordeal",
            options={
                "io.tmp.dirs": str(self._tmp),
                "rest.port": str(port),
                "web.refresh-interval": "100",  # ms; how old an answer may be
                "execution.checkpointing.timeout": f"{_CHECKPOINT_S} s",
            },
            timeouts=_TIMEOUTS,
            on_step=hinder(str(folder), on_step),
        )
        self.view = JobView(port, self.job.job_id)
        self._ended = self.job._j_client.getJobExecutionResult()
        self._seen: set[Process] = set()

    def bear(self, blow: Blow) -> None:
        """Strike once a checkpoint has completed; wait until the job has completed more."""
        self.await_checkpoints(1)
        self._seen |= set(descendants(os.getpid()))
        before = self.view.failures()
        pids = self._pids()
        began = time.monotonic()
        blow.strike(self)
        if blow.cause is not None:
            cause = self.until(lambda: self._new_failure(before), f"a cause: {blow.name}")
            assert re.search(blow.cause, cause), f"{blow.name}: {cause}"
        noticed_s = time.monotonic() - began
        self.await_checkpoints(2)  # the second one has begun since
        over_s = time.monotonic() - began
        _LOG.info("%s: noticed after %.1f s, over after %.1f s", blow.name, noticed_s, over_s)
        if blow.cause is None:
            assert self.view.failures() == before, f"{blow.name}: Flink has restarted the job"
            assert self._pids() == pids, f"{blow.name}: processes were restarted"

    def finish(self) -> None:
        """Let the job run to its end, which must be that of a job without blows."""
        restarts = len(self.view.failures())
        (self.folder / "go").touch()
        seen: list[str] = []

        def has_ended() -> bool:
            seen[:] = self.view.failures() or seen
            return bool(self._ended.isDone())

        until(has_ended, "end of the job", _LIMIT_S)
        assert len(seen) <= restarts, f"restarted on its way to the end: {seen[0]}"
        require_exact(self.case, self.job, self._places)
        self._require_nothing_left()

    def give_up(self) -> None:
        """Leave nothing behind, whatever went wrong."""
        for each in members():
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGCONT)
        if not self._ended.isDone():
            self.job.cancel()
            with pytest.raises(JobFailedError):
                self.job.wait(timeout_s=30, show_progress=False)

    def until(self, look: Callable[[], Any], what: str) -> Any:
        """Look until something is seen; a job that has ended fails the test with its end."""

        def seen() -> Any:
            if self._ended.isDone():
                self.job.wait(timeout_s=5, show_progress=False)  # raises where it has failed
                pytest.fail(f"the job has ended: no {what}")
            return look()

        return until(seen, what, _LIMIT_S, lambda: f"{members()}\n{self.view.failures()[:1]}")

    def await_checkpoints(self, count: int) -> None:
        """Wait for so many more; Flink keeps the last one only."""
        before = self._checkpoints()
        seen: set[str] = set()

        def are_there() -> bool:
            seen.update(self._checkpoints() - before)
            return len(seen) >= count

        self.until(are_there, f"{count} checkpoints")

    def process(self, index: int) -> int:
        """Return the pid of the algorithm process of a worker."""
        return self._worker(index).pid

    def node(self, index: int) -> int:
        """Return the pid of the node process of a worker."""
        return self._worker(index).parent

    def master(self) -> int:
        """Return the pid of the master."""
        return self._one(lambda each: each.kind == "master").pid

    def steps_by_pid(self) -> dict[str, int]:
        """Return how many steps each process of a worker has made so far."""
        paths = [*self._places.steps.iterdir()]
        return {each.name: len(each.read_text().splitlines()) for each in paths}

    def _worker(self, index: int) -> Member:
        return self._one(lambda each: each.kind == "process" and each.index == index)

    def _one(self, is_it: Callable[[Member], bool]) -> Member:
        found: Member = self.until(
            lambda: next((each for each in members() if is_it(each)), None), "that process"
        )
        return found

    def _pids(self) -> set[int]:
        return {each.pid for each in members() if each.index is not None}

    def _checkpoints(self) -> set[str]:
        found = self._places.checkpoints.glob("*/chk-*/_metadata")
        return {each.parent.name for each in found}

    def _new_failure(self, before: list[str]) -> str | None:
        now = self.view.failures()
        return now[0] if len(now) > len(before) else None

    def _require_nothing_left(self) -> None:
        def left() -> list[str]:
            alive = {f"process {each}" for each in self._seen if each.is_alive}
            return sorted((traces(self._tmp) | alive) - self._before)

        until(lambda: not left(), "clean end", _CLEAN_S, lambda: "\n".join(left()))


def killed(index: int, name: str) -> str:
    """Return the pattern of the cause when a worker's algorithm process got that signal."""
    return rf"worker-{index}: [^\n]*\nThe process was ended by {name}\."


def hinder(folder: str, more: OnStep | None) -> OnStep:
    """Return what a worker does after each step: it is slow, and obeys."""

    def on_step(ctx: Any) -> None:
        here = Path(folder)
        if more is not None:
            more(ctx)
        if (here / "go").exists():
            return
        Event().wait(_PAUSE_S)
        order = here / f"starve-{ctx.index}"
        if order.exists():
            group = order.read_text()
            order.unlink()
            Path(group, "cgroup.procs").write_text(str(os.getpid()))
            held = [bytearray(b"x" * 1_000_000) for _ in range(1000)]
            msg = f"the kernel lets a process have {len(held)} MB in a group of 64"
            raise RuntimeError(msg)

    return on_step


@contextmanager
def open_ordeal(case: Case, **more: Any) -> Iterator[Ordeal]:
    """Submit a job in a folder with a short name, since sockets need one."""
    with TemporaryDirectory(prefix="ordeal-") as folder:
        ordeal = Ordeal(case, Path(folder), **more)
        try:
            yield ordeal
        finally:
            ordeal.give_up()
