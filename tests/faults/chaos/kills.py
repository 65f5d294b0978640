"""Signals to random processes of a job at random moments, and how long it takes to go on."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import dataclass

from headrace.operator import JobHandle
from tests.faults.chaos.jobs import Places
from tests.faults.chaos.jvm_log import JvmLog
from tests.faults.chaos.traces import Traces
from tests.faults.flink.sight import Member, members
from tests.waiting import until

__all__ = ["KINDS", "Kill", "Victims"]

KINDS = ("process", "node", "master")
_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)
_WEIGHTS = (6, 3, 1)
_LIMIT_S = 120.0
_SETTLE_S = 1.5
_IN_A_ROW_S = 3.0
_PART_IN_A_ROW = 0.25
_FROZEN_S = 1.0
_DOOMED_S = 0.5  # in which who ends with the victim may make first steps


@dataclass(frozen=True, slots=True)
class Kill:
    """One signal to a living process.

    Attributes:
        kind: "process" (that of the algorithm), "node", "master" or "spare" (a spare node, or
            its process).
        signal: SIGKILL, SIGSEGV or SIGSTOP.
        recovery_s: Seconds until what was hit was back: for a process or a node to the next
            step in a new process, of the last worker to make one (of a kill that follows on
            another one, of steps at least half a second later); for a master until a new one
            had all nodes, which train on meanwhile. None where nothing of the job was ended,
            the next kill came first, or the job ended.
    """

    kind: str
    signal: signal.Signals
    recovery_s: float | None


class Victims:
    """Hits processes of one job.

    Three of four signals come at a random moment within a second and a half of a checkpoint
    that has completed behind the last recovery; what they have to lead to is awaited, and then
    nothing may be left of what there was before. One of four kills comes within three seconds
    of the last one, wherever the job is by then, maybe in what was about to end.

    Args:
        job: The only job of this process' JVM, submitted a moment ago.
        places: Where it leaves what.
        workers: How many processes train.
        chance: What decides.
        log: The log from before the job.
    """

    def __init__(
        self,
        job: JobHandle,
        places: Places,
        workers: int,
        chance: random.Random,
        log: JvmLog,
    ) -> None:
        self._places = places
        self._workers = workers
        self._chance = chance
        self._log = log
        self._traces: Traces | None = None
        self._ended = job._j_client.getJobExecutionResult()

    @property
    def has_ended(self) -> bool:
        """Whether the job has."""
        return bool(self._ended.isDone())

    def kill(self, count: int) -> Iterator[Kill]:
        """Hit until the job has recovered so often, unless it ends before."""
        in_a_row = False
        while count > 0:
            if in_a_row:
                _pause(self._chance.uniform(0, _IN_A_ROW_S))
            elif self._await_checkpoint():
                _pause(self._chance.uniform(0, _SETTLE_S))
            else:
                return
            number = self._chance.choices(_SIGNALS, _WEIGHTS)[0]
            if in_a_row and number is signal.SIGSTOP:
                number = signal.SIGKILL
            is_calm = not in_a_row
            choice = self._choose(is_calm=is_calm)
            if choice is None:
                return
            in_a_row = self._chance.random() < _PART_IN_A_ROW
            kill = self._hit(*choice, number, waits=not in_a_row, is_calm=is_calm)
            if kill is not None:
                count -= kill.recovery_s is not None
                yield kill

    def kill_one(self, kind: str, number: signal.Signals) -> Kill:
        """Hit a process of this kind behind a new checkpoint, and wait for what follows."""
        assert self._await_checkpoint(), "the job has ended"
        choice = self._choose(is_calm=True, kind=kind)
        kill = choice and self._hit(*choice, number, waits=True, is_calm=True)
        assert kill, "the job has ended"
        return kill

    def _choose(self, *, is_calm: bool, kind: str | None = None) -> tuple[str, Member] | None:
        """Return a process and its kind; None if the job has ended.

        A spare is drawn in a calm job only: in one that restarts it may be taken just now.
        """
        found: dict[str, list[Member]] = {}

        def seen() -> bool:
            found.clear()
            for each, of_kind in self._kinds().items():
                if is_calm or of_kind != "spare":
                    found.setdefault(of_kind, []).append(each)
            return self.has_ended or (bool(found) if kind is None else kind in found)

        until(seen, f"a living {kind or 'process of the job'}", _LIMIT_S)
        if self.has_ended:
            return None
        kind = kind or self._chance.choice(sorted(found))
        return kind, self._chance.choice(found[kind])

    def _kinds(self) -> dict[Member, str]:
        """Return what there is, but for what has only just been started."""
        there = members(with_spares=True)
        job, spares = self._log.nodes()
        found = {}
        for each in there:
            node = each.parent if each.kind == "process" else each.pid
            if node in job or node in spares:
                found[each] = "spare" if node in spares else each.kind
        return found

    def _hit(
        self,
        kind: str,
        victim: Member,
        number: signal.Signals,
        *,
        waits: bool,
        is_calm: bool,
    ) -> Kill | None:
        """Send the signal; return None if the process has ended by itself, or the job has.

        In a job that is restarting already, the victim may be of the attempt that ends, or the
        process of a spare node that begins another one then: all that surely goes is itself.
        """
        waits = waits or number is signal.SIGSTOP
        if waits and self._traces is None:
            self._traces = Traces(self._places, self._workers)
        before = {victim.pid}
        if is_calm:
            before |= {
                each.pid for each, of_kind in self._kinds().items() if of_kind != "spare"
            }
        pids, gatherings = self._pids(), self._log.gatherings()
        try:
            process = os.pidfd_open(victim.pid)
        except ProcessLookupError:
            return None
        try:
            if victim.pid not in {each.pid for each in members(with_spares=True)}:
                return None
            at_s = time.monotonic()
            signal.pidfd_send_signal(process, number)
            if number is signal.SIGSTOP:
                _pause(self._chance.uniform(0, _FROZEN_S))
        except ProcessLookupError:
            return None
        finally:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(process, signal.SIGCONT)
            os.close(process)
        if not waits:
            return Kill(kind, number, None)
        if kind == "spare" or number is signal.SIGSTOP:
            self._require_no_restart(kind, pids)
            gone = {victim.pid} if number is not signal.SIGSTOP else set()
            back_s = None
        elif kind == "master":
            back_s = self._await(lambda: self._gathered(gatherings), kind)
            gone = {victim.pid}
        else:
            former = pids | {str(pid) for pid in before}  # some may not have made a step yet
            since_s = at_s if is_calm else at_s + _DOOMED_S
            back_s = self._await(lambda: self._latest_first_step(former, since_s), kind)
            gone = before
        if self.has_ended:
            return Kill(kind, number, None)
        assert self._traces is not None
        self._traces.require_none_of(gone, lambda: self.has_ended)
        return Kill(kind, number, None if back_s is None else back_s - at_s)

    def _await(self, look: Callable[[], float | None], kind: str) -> float | None:
        """Wait for an instant that `look` returns; None if the job ends before."""
        found: list[float | None] = [None]

        def seen() -> bool:
            found[0] = look()
            return self.has_ended or found[0] is not None

        until(seen, f"recovery from the kill of a {kind}", _LIMIT_S)
        return None if self.has_ended else found[0]

    def _require_no_restart(self, kind: str, pids: set[str]) -> None:
        """The job goes on: a checkpoint completes, and the same processes make steps."""
        at_s = time.monotonic()
        self._await_checkpoint()
        until(lambda: self.has_ended or self._have_stepped(at_s), "a step of each", _LIMIT_S)
        assert self.has_ended or self._pids() == pids, f"a {kind} restarted the job"

    def _have_stepped(self, since_s: float) -> bool:
        """Whether each worker has made a step since then."""
        lasts = [max(times) for times in self._steps().values()]
        return len([last for last in lasts if last > since_s]) == self._workers

    def _gathered(self, before: int) -> float | None:
        """Return the present instant if a master has had all its nodes once more."""
        return time.monotonic() if self._log.gatherings() > before else None

    def _latest_first_step(self, but_of: Set[str], since_s: float) -> float | None:
        """Return when each worker had made a step since then in none of these processes."""
        later = [[t for t in times if t > since_s] for times in self._steps(but_of).values()]
        firsts = [min(times) for times in later if times]
        return max(firsts) if len(firsts) == self._workers else None

    def _await_checkpoint(self) -> bool:
        """Wait for a new one; return False if the job ends before."""
        before = self._checkpoints()
        until(lambda: self.has_ended or self._checkpoints() - before, "checkpoint", _LIMIT_S)
        return not self.has_ended

    def _checkpoints(self) -> set[str]:
        return {each.parent.name for each in self._places.checkpoints.glob("*/chk-*/_metadata")}

    def _pids(self) -> set[str]:
        return {each.name.partition("-")[2] for each in self._places.steps.iterdir()}

    def _steps(self, but_of: Set[str] = frozenset()) -> dict[str, list[float]]:
        """Return when each worker made steps, but for those of some pids."""
        found: dict[str, list[float]] = {}
        for each in self._places.steps.iterdir():
            worker, _, pid = each.name.partition("-")
            if pid not in but_of:
                lines = each.read_text().split("\n")[:-1]  # half a last line is none
                times = [float(line.split()[0]) for line in lines]
                if times:
                    found.setdefault(worker, []).extend(times)
        return found


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
