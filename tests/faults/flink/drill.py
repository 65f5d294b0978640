"""Carries one fault out: waits for its moment, hits, and checks what follows and is left."""

from __future__ import annotations

import os
import re
import signal
import time
from dataclasses import dataclass

import pytest

from headrace.errors import JobFailedError
from headrace.operator import JobHandle
from tests.faults.flink.plan import (
    EARLY,
    Fault,
    Mode,
    Moment,
    Outcome,
    Target,
    expected_cause,
    expected_outcome,
)
from tests.faults.flink.scene import ROWS, WORKERS, Scene, open_scene
from tests.faults.flink.sight import JobView, Member, members, traces
from tests.faults.flink.task_managers import TaskManagers
from tests.flink.system import Process, descendants
from tests.waiting import always, until, until_settled

__all__ = ["DrillResult", "run_drill"]

CANCEL_S = 5.0
_NOTICE_S = 45.0
_END_S = 60.0
_CLEAN_S = 5.0
_FROZEN_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillResult:
    """How a fault went.

    Attributes:
        fault: The fault.
        outcome: What it led to.
        seconds: From the signal until work went on, the job had failed or it was cancelled.
    """

    fault: Fault
    outcome: Outcome
    seconds: float


def run_drill(fault: Fault, cluster: TaskManagers | None = None) -> DrillResult:
    """Run one job with one fault. Fails the test if anything but the expected follows."""
    with open_scene(fault, cluster) as scene:
        before = traces(scene.tmp_dir)
        drill = _Drill(scene, scene.submit())
        try:
            seconds = drill.run()
            drill.expect_nothing_left(before)
        finally:
            drill.clean_up()
    return DrillResult(fault=fault, outcome=expected_outcome(fault), seconds=seconds)


class _Drill:
    def __init__(self, scene: Scene, job: JobHandle) -> None:
        self.scene = scene
        self.fault = scene.fault
        self.job = job
        self.view = JobView(scene.port, job.job_id)
        self.ended = job._j_client.getJobExecutionResult()
        self.seen: set[Process] = set()
        self.ended_at = 0.0
        self.hit_pid: int | None = None
        self.last_attempt = 0

    def run(self) -> float:
        """Return the seconds from the signal to what it led to; the job has ended then."""
        seconds = self._hit()
        if self.fault.target is Target.TASK_MANAGER:
            self._wake()
        self.ended_at = time.monotonic()
        return seconds

    def _hit(self) -> float:
        target = self._await_moment()
        self.seen |= set(descendants(os.getpid()))
        below = [e for e in descendants(target.pid) if not self.scene.is_held_back(e.command)]
        self.hit_pid = target.pid
        self.last_attempt = max(self.scene.attempts(), default=0)
        hit_at = time.monotonic()
        os.kill(target.pid, self.fault.signal)
        if self.fault.target is Target.TASK_MANAGER and self.fault.signal != signal.SIGSTOP:
            _expect_end(below, hit_at)
        outcome = expected_outcome(self.fault)
        if outcome is Outcome.FAILED:
            self._expect_failure()
            return time.monotonic() - hit_at
        if outcome is Outcome.CANCELLED:
            return self._cancel()
        if outcome is Outcome.NOTHING:
            self._expect_patience()
        elif outcome is Outcome.MASTER_RESTART:
            self._expect_new_master(target)
        elif outcome is Outcome.GROUP_RESTART:
            self._expect_group_restart(target)
        else:
            self._expect_flink_restart()
        seconds = time.monotonic() - hit_at
        self._expect_good_end()
        return seconds

    def expect_nothing_left(self, before: set[str]) -> None:
        """Within seconds of the end, also of what has been frozen all the time."""

        def left() -> list[str]:
            alive = {f"process {each}" for each in self.seen if each.is_alive}
            return sorted((traces(self.scene.tmp_dir) | alive) - before)

        limit_s = self.ended_at + _CLEAN_S - time.monotonic()
        until(lambda: not left(), "clean end", limit_s, lambda: "\n".join(left()))

    def clean_up(self) -> None:
        """Let nothing stay behind, whatever went wrong."""
        self._wake()
        self.scene.let_go()
        if not self.ended.isDone():
            self.job.cancel()
            with pytest.raises(JobFailedError):
                self.job.wait(timeout_s=30, show_progress=False)

    def _wake(self) -> None:
        if self.hit_pid is not None and self.fault.signal is signal.SIGSTOP:
            _signal(self.hit_pid, signal.SIGCONT)

    def _await_moment(self) -> Member:
        fault, scene = self.fault, self.scene
        if fault.moment is Moment.GATHERING:
            until(lambda: self.job.status().registered == 1, "one node to register")
        elif fault.moment is not Moment.START:
            until(scene.is_held, "every worker to come to the moment")
        if fault.mode is Mode.STREAM and fault.moment is Moment.MIDDLE:
            until(self.view.completed_checkpoints, "a checkpoint")
        if fault.moment is Moment.FULL:
            self._await_full_queues()
        return until(self._find, f"the {fault.target.value}")

    def _await_full_queues(self) -> None:
        """The workers are held: when nothing has moved for several looks, nothing can."""
        rows = until_settled(self.view.rows_in, "rows, and then none", for_s=0.5)
        assert rows < ROWS, "the queues have room for every row"

    def _find(self) -> Member | None:
        found = members()
        if self.fault.target is Target.TASK_MANAGER:
            node = self._find_node(found)
            return node and Member("task manager", node.parent, os.getpid(), None)
        wanted = [each for each in found if each.kind == self.fault.target.value]
        if self.fault.target is Target.MASTER:
            return wanted[0] if wanted else None
        if self.fault.target is Target.PROCESS:
            return next((each for each in wanted if each.index == self.fault.index), None)
        return self._find_node(found)

    def _find_node(self, found: list[Member]) -> Member | None:
        nodes = [each for each in found if each.kind == "node"]
        if self.fault.moment in EARLY:
            return min(nodes, key=lambda each: each.pid, default=None)
        parents = {each.parent for each in found if each.index == self.fault.index}
        return next((each for each in nodes if each.pid in parents), None)

    def _expect_failure(self) -> None:
        with pytest.raises(JobFailedError) as caught:
            self.job.wait(timeout_s=_NOTICE_S, show_progress=False)
        assert re.search(expected_cause(self.fault), caught.value.cause), caught.value.cause
        assert self.fault.mode is Mode.BATCH or len(self.scene.attempts()) <= 1

    def _cancel(self) -> float:
        started_at = time.monotonic()
        self.job.cancel()
        with pytest.raises(JobFailedError):
            self.job.wait(timeout_s=30, show_progress=False)
        seconds = time.monotonic() - started_at
        assert seconds < CANCEL_S, f"cancel took {seconds:.1f} s"
        return seconds

    def _expect_patience(self) -> None:
        always(lambda: not self.ended.isDone(), "it was not waited for", for_s=_FROZEN_S)
        self._wake()

    def _expect_new_master(self, former: Member) -> None:
        processes = {each.pid for each in members() if each.kind == "process"}
        until(
            lambda: [e for e in members() if e.kind == "master" and e.pid != former.pid],
            "a new master",
            _NOTICE_S,
        )
        if self.fault.moment is not Moment.GATHERING:
            until(self._is_running_again, "the nodes to register again", _NOTICE_S)
        if self.fault.moment in (Moment.FULL, Moment.END):
            now = {each.pid for each in members() if each.kind == "process"}
            assert processes == now, "processes were restarted with the master"

    def _is_running_again(self) -> bool:
        status = self.job.status()
        return status.state != "GATHERING" and status.registered == WORKERS

    def _expect_group_restart(self, lost: Member) -> None:
        until(lambda: self.scene.attempts().get(2), "a second attempt", _NOTICE_S)
        failed = [event for event in self.scene.events() if event["type"] == "ProcessFailed"]
        was_frozen = self.fault.signal is signal.SIGSTOP  # then its node has killed it
        by = signal.SIGKILL if was_frozen else self.fault.signal
        assert failed[0]["failure"]["signal"] == by.name, failed
        assert ("was frozen" in failed[0]["failure"]["message"]) == was_frozen, failed
        assert lost.index is None or failed[0]["node"] == f"worker-{lost.index}", failed
        assert not self.view.failures(), "Flink restarted the job, not the master the group"

    def _expect_flink_restart(self) -> None:
        cause = until(self.view.failures, "Flink to restart the job", _NOTICE_S)[-1]
        assert re.search(expected_cause(self.fault), cause), cause
        if self.fault.moment is Moment.GATHERING:
            self.scene.let_go()
        until(self._has_begun_again, "every worker to begin again", _NOTICE_S)

    def _has_begun_again(self) -> bool:
        attempts = self.scene.attempts()
        last = max(attempts, default=0)
        return last > self.last_attempt and len(attempts[last]) == WORKERS

    def _expect_good_end(self) -> None:
        self.scene.let_go()
        failures: list[str] = []
        until(lambda: self._has_ended(failures), "the job to end", _END_S)
        result = self.job.wait(timeout_s=_END_S, show_progress=False)
        assert result.status.state == "FINISHED"
        assert self.scene.results() == self.scene.expected_results()
        outcome = expected_outcome(self.fault)
        if outcome in (Outcome.NOTHING, Outcome.MASTER_RESTART):
            assert set(self.scene.attempts()) == {1}, f"something was restarted: {failures}"
        if outcome is Outcome.GROUP_RESTART:
            assert (result.status.attempt, result.status.restarts) == (2, 1)

    def _has_ended(self, failures: list[str]) -> bool:
        """Note what Flink has restarted the job for while it can be asked."""
        failures[:] = self.view.failures() or failures
        return bool(self.ended.isDone())


def _expect_end(processes: list[Process], since: float) -> None:
    """Within seconds of an instant."""
    limit_s = since + _CLEAN_S - time.monotonic()
    until(
        lambda: not any(each.is_alive for each in processes),
        "end of what the TaskManager had started",
        limit_s,
        lambda: "\n".join(each.command for each in processes if each.is_alive),
    )


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
