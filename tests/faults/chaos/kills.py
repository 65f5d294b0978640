"""kill -9 of random processes of a job at random moments, and how long it takes to go on."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from headrace.operator import JobHandle
from tests.faults.chaos.jobs import Places
from tests.faults.flink.sight import Member, files_left, members
from tests.waiting import until

__all__ = ["Kill", "Victims", "require_nothing_left"]

KINDS = ("process", "node", "master")
_LIMIT_S = 120.0
_CLEAN_S = 10.0
_SETTLE_S = 1.5
_IN_A_ROW_S = 3.0
_PART_IN_A_ROW = 0.25


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill.

    Attributes:
        kind: "process" (that of the algorithm), "node" or "master".
        recovery_s: Seconds to the next step, of the last worker to make one; None where the
            next kill came first, or the job ended.
    """

    kind: str
    recovery_s: float | None


class Victims:
    """Kills processes of one job.

    Three of four kills come at a random moment within a second and a half of a checkpoint
    that has completed behind the last recovery; one of four within three seconds of the last
    kill, wherever the job is by then.

    Args:
        job: The only job of this process' JVM.
        places: Where it leaves what.
        workers: How many processes train.
        chance: What decides.
    """

    def __init__(
        self, job: JobHandle, places: Places, workers: int, chance: random.Random
    ) -> None:
        self._places = places
        self._workers = workers
        self._chance = chance
        self._ended = job._j_client.getJobExecutionResult()

    @property
    def has_ended(self) -> bool:
        """Whether the job has."""
        return bool(self._ended.isDone())

    def kill(self, count: int) -> Iterator[Kill]:
        """Kill so often, unless the job ends before."""
        in_a_row = False
        for _ in range(count):
            if in_a_row:
                _pause(self._chance.uniform(0, _IN_A_ROW_S))
            elif not self._await_checkpoint():
                return
            else:
                _pause(self._chance.uniform(0, _SETTLE_S))
            victim = self._choose()
            if victim is None:
                return
            in_a_row = self._chance.random() < _PART_IN_A_ROW
            yield self._hit(victim, waits=not in_a_row)

    def _choose(self) -> Member | None:
        kind = self._chance.choice(KINDS)
        found: list[Member] = []

        def seen() -> bool:
            found[:] = [each for each in members() if each.kind == kind]
            return bool(found) or self.has_ended

        until(seen, f"a living {kind}", _LIMIT_S)
        return None if self.has_ended else self._chance.choice(found)

    def _hit(self, victim: Member, *, waits: bool) -> Kill:
        before = self._pids()
        masters = {each.pid for each in members() if each.kind == "master"}
        at_s = time.monotonic()
        try:
            os.kill(victim.pid, signal.SIGKILL)
        except ProcessLookupError:
            return Kill(victim.kind, None)
        if not waits:
            return Kill(victim.kind, None)
        stays = victim.kind == "master"  # healthy nodes go on training

        def recovered() -> float | None:
            if self.has_ended:
                return at_s
            if stays and not {e.pid for e in members() if e.kind == "master"} - masters:
                return None
            firsts = [
                min((t for t in times if t > at_s), default=None)
                for times in self._steps(set() if stays else before).values()
            ]
            known = [first for first in firsts if first is not None]
            return max(known) if len(known) == self._workers else None

        recovered_s = until(recovered, f"step behind the kill of a {victim.kind}", _LIMIT_S)
        return Kill(victim.kind, None if recovered_s == at_s else recovered_s - at_s)

    def _await_checkpoint(self) -> bool:
        """Wait for a new one; return False if the job ends before."""
        before = self._checkpoints()
        until(lambda: self.has_ended or self._checkpoints() - before, "checkpoint", _LIMIT_S)
        return not self.has_ended

    def _checkpoints(self) -> set[str]:
        return {each.parent.name for each in self._places.checkpoints.glob("*/chk-*/_metadata")}

    def _pids(self) -> set[str]:
        return {each.name.partition("-")[2] for each in self._places.steps.iterdir()}

    def _steps(self, but_of: set[str]) -> dict[str, list[float]]:
        """Return when each worker made steps, but for those of some pids."""
        found: dict[str, list[float]] = {}
        for each in self._places.steps.iterdir():
            worker, _, pid = each.name.partition("-")
            if pid not in but_of:
                lines = each.read_text().splitlines()
                found.setdefault(worker, []).extend(
                    float(line.split()[0]) for line in lines if line
                )
        return found


def require_nothing_left() -> None:
    """Soon after the end of a job neither a process nor a file of it is left."""
    until(lambda: not members(), "the end of every process", _CLEAN_S, lambda: str(members()))
    until(
        lambda: not files_left(), "the end of every file", _CLEAN_S, lambda: str(files_left())
    )


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
