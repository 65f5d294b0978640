"""What is done to a job or to the cluster that it runs on, and what is put right behind it."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.faults.kinds.stage import HEARTBEAT_TIMEOUT_S, Manager
from tests.faults.kinds.trial import Trial
from tests.flink.kept_job import gone, processes
from tests.memory_group import killed_in
from tests.waiting import until

__all__ = ["CUT", "KINDS", "OUT_OF_MEMORY", "TASK_MANAGER_KILLED", "Kind", "Strike"]

_CHEAP, _COSTLY = 8, 5
_PEER, _PEER_FROZEN = 4, 2
_STARVED_S = 20.0
_SLOTS_S = 10.0  # for how long a TaskManager keeps the slots of a JobManager that it has lost
_SLACK_S = 10.0


@dataclass(frozen=True, slots=True)
class Strike:
    """One that has been made.

    Attributes:
        at_s: The monotonic instant.
        mend: Brings the cluster back to what it was, once the job is back; blocks.
    """

    at_s: float
    mend: Callable[[], None] = field(default=lambda: None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of strike.

    Attributes:
        name: What has happened.
        strike: Makes one.
        repeats: How many of a whole run hit the training.
        peer_repeats: How many hit a job of Flink alone; 0 where that has nothing to be hit.
        bounds: Settings that what follows waits for, as they are named in the results.
        needs_hosts: Whether it needs several hosts.
    """

    name: str
    strike: Callable[[Trial], Strike]
    repeats: int
    peer_repeats: int = 0
    bounds: tuple[str, ...] = ()
    needs_hosts: bool = False


def _process_gets(number: signal.Signals) -> Callable[[Trial], Strike]:
    return _gets(number, lambda trial: trial.worker().pid)


def _node_gets(number: signal.Signals) -> Callable[[Trial], Strike]:
    return _gets(number, lambda trial: trial.worker().parent)


def _gets(number: signal.Signals, victim: Callable[[Trial], int]) -> Callable[[Trial], Strike]:
    def strike(trial: Trial) -> Strike:
        pid = victim(trial)
        at_s = time.monotonic()
        os.kill(pid, number)
        return Strike(at_s)

    return strike


def _starve(trial: Trial) -> Strike:
    """Have a worker take more memory than its control group has; the kernel ends it."""
    assert trial.group is not None
    victim = trial.worker()
    before = killed_in(trial.group)
    order = trial.places.folder / f"starve-{victim.index}"
    draft = order.with_name("draft")
    process = os.pidfd_open(victim.pid)
    try:
        draft.write_text(str(trial.group))
        draft.replace(order)
        ended, _, _ = select.select([process], [], [], _STARVED_S)
        at_s = time.monotonic()
    finally:
        os.close(process)
    assert ended, f"{victim} has not ended"
    assert killed_in(trial.group) > before, f"the kernel has not ended {victim}"
    return Strike(at_s)


def _kill_manager(trial: Trial) -> Strike:
    victim = trial.manager()
    at_s = time.monotonic()
    trial.stage.cluster.kill(victim)
    return Strike(at_s, lambda: _add_manager(trial))


def _freeze_manager(trial: Trial) -> Strike:
    """What runs below it ends by itself (docs/adr/0129)."""
    victim = trial.manager()
    below = processes(victim)
    at_s = time.monotonic()
    victim.send_signal(signal.SIGSTOP)

    def mend() -> None:
        limit_s = HEARTBEAT_TIMEOUT_S + _SLACK_S
        until(lambda: gone(below), "end of what a frozen JVM had started", limit_s)
        trial.stage.cluster.kill(victim)
        _add_manager(trial)

    return Strike(at_s, mend)


def _add_manager(trial: Trial) -> None:
    trial.stage.cluster.add_task_manager()
    trial.stage.cluster.wait_for_slots()


def _kill_job_manager(trial: Trial) -> Strike:
    cluster = trial.stage.cluster
    at_s = time.monotonic()
    cluster.lose_job_manager()

    def mend() -> None:
        cluster.add_standby()
        cluster.wait_for_slots()

    return Strike(at_s, mend)


def _cut(trial: Trial) -> Strike:
    """Take a host off the network, and put it back when all that ran there has ended."""
    stage = trial.stage
    victim: Manager = trial.manager()
    assert stage.network is not None
    network, host = stage.network, stage.host_of(victim)
    below = processes(victim)
    at_s = time.monotonic()
    network.cut(host)

    def mend() -> None:
        limit_s = HEARTBEAT_TIMEOUT_S + _SLOTS_S + _SLACK_S
        until(lambda: gone(below), "end of what was cut off", limit_s, stage.cluster.logs)
        network.mend(host)
        stage.cluster.wait_for_slots()

    return Strike(at_s, mend)


OUT_OF_MEMORY = Kind(
    name="process ended by the kernel for its memory", strike=_starve, repeats=_CHEAP
)
TASK_MANAGER_KILLED = Kind(
    name="TaskManager killed",
    strike=_kill_manager,
    repeats=_COSTLY,
    peer_repeats=_PEER,
    bounds=("flink_heartbeat_interval_s",),
)
CUT = Kind(
    name="host cut off",
    strike=_cut,
    repeats=_COSTLY,
    peer_repeats=_PEER_FROZEN,
    bounds=("heartbeat_timeout_s", "flink_heartbeat_timeout_s"),
    needs_hosts=True,
)
KINDS = (
    Kind(name="process killed", strike=_process_gets(signal.SIGKILL), repeats=_CHEAP),
    Kind(name="process crashed", strike=_process_gets(signal.SIGSEGV), repeats=_CHEAP),
    OUT_OF_MEMORY,
    Kind(
        name="process frozen",
        strike=_process_gets(signal.SIGSTOP),
        repeats=_COSTLY,
        bounds=("heartbeat_timeout_s",),
    ),
    Kind(name="node killed", strike=_node_gets(signal.SIGKILL), repeats=_CHEAP),
    Kind(
        name="node frozen",
        strike=_node_gets(signal.SIGSTOP),
        repeats=_COSTLY,
        bounds=("heartbeat_timeout_s",),
    ),
    TASK_MANAGER_KILLED,
    Kind(
        name="TaskManager frozen",
        strike=_freeze_manager,
        repeats=_COSTLY,
        peer_repeats=_PEER_FROZEN,
        bounds=("flink_heartbeat_timeout_s",),
    ),
    Kind(
        name="JobManager killed",
        strike=_kill_job_manager,
        repeats=_COSTLY,
        peer_repeats=_PEER,
        bounds=("zookeeper_session_timeout_s",),
    ),
    CUT,
)
