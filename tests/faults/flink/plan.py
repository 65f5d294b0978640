"""Which faults there are, which of them a run picks, and what has to follow. Pure."""

from __future__ import annotations

import itertools
import random
import signal
from dataclasses import dataclass
from enum import Enum

__all__ = [
    "PYTHON",
    "SIGNALS",
    "Ending",
    "Fault",
    "Mode",
    "Moment",
    "Outcome",
    "Target",
    "every_fault",
    "expected_cause",
    "expected_outcome",
    "never_registers",
    "pairwise",
    "random_faults",
]

SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP)


class Mode(Enum):
    """Whether rows flow into the workers."""

    STREAM = "stream"
    BATCH = "batch"


class Target(Enum):
    """What is hit."""

    PROCESS = "process"
    NODE = "node"
    MASTER = "master"
    TASK_MANAGER = "task manager"
    """The JVM around a node; needs a cluster that survives it."""


PYTHON = (Target.PROCESS, Target.NODE, Target.MASTER)
"""What can be hit in a mini-cluster."""


class Moment(Enum):
    """When it is hit."""

    START = "start"
    """As soon as the target exists."""
    GATHERING = "gathering"
    """One node has registered, the other one has not started yet."""
    MIDDLE = "middle"
    """Rows flow; in stream mode a checkpoint has completed."""
    FULL = "full"
    """The workers take no rows and the queue is full."""
    END = "end"
    """The workers have had all their rows and have not returned yet."""


EARLY = (Moment.START, Moment.GATHERING)
"""Moments at which it is not known which worker a node is for: the first one is hit."""


class Ending(Enum):
    """What the job is like, or what the test does after the fault."""

    RECOVER = "recover"
    """Restarts are allowed; the job must end well, every row exactly once."""
    FAIL = "fail"
    """Restarts are not allowed; the job must fail with a cause that names what died."""
    CANCEL = "cancel"
    """The job is cancelled while the target is frozen."""
    CONTINUE = "continue"
    """The frozen target runs on after a moment, and the job must end well."""


class Outcome(Enum):
    """What a fault must lead to before the job ends."""

    NOTHING = "nothing"
    """Nobody needs to do anything."""
    MASTER_RESTART = "master restart"
    """A new master process; nodes and processes go on."""
    GROUP_RESTART = "group restart"
    """New processes below the same nodes."""
    FLINK_RESTART = "flink restart"
    """Flink deploys everything anew."""
    FAILED = "failed"
    """The job fails."""
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault in one job.

    Attributes:
        mode: What kind of job it hits.
        target: The process that gets the signal.
        signal: The signal.
        moment: When.
        ending: What comes after it.
        index: The worker whose process or node it is; without meaning for the master.
    """

    mode: Mode
    target: Target
    signal: signal.Signals
    moment: Moment
    ending: Ending
    index: int = 0

    def __str__(self) -> str:
        who = f"-{self.index}" if self.target in (Target.PROCESS, Target.NODE) else ""
        return (
            f"{self.mode.value}: {self.signal.name} of {self.target.value}{who}, "
            f"{self.moment.value}, {self.ending.value}"
        )


def every_fault(targets: tuple[Target, ...] = PYTHON) -> list[Fault]:
    """Return every fault that can be, in a fixed order, all at worker 0."""
    return [
        fault
        for mode, target, number, moment, ending in itertools.product(
            Mode, targets, SIGNALS, Moment, Ending
        )
        if _can_be(
            fault := Fault(
                mode=mode, target=target, signal=number, moment=moment, ending=ending
            )
        )
    ]


def pairwise(seed: int, targets: tuple[Target, ...] = PYTHON) -> list[Fault]:
    """Return few faults in which every pair of values that can meet does meet."""
    source = random.Random(seed)
    faults = every_fault(targets)
    source.shuffle(faults)
    missing = {pair for fault in faults for pair in _pairs(fault)}
    chosen = []
    while missing:
        best = max(faults, key=lambda fault: len(missing & _pairs(fault)))
        missing -= _pairs(best)
        chosen.append(_at(best, source.randrange(2)))
    return chosen


def random_faults(seed: int, count: int, targets: tuple[Target, ...] = PYTHON) -> list[Fault]:
    """Return `count` faults in random order; none comes twice before each has come once."""
    source = random.Random(seed)
    every = every_fault(targets)
    rounds = -(-count // len(every))
    faults = [each for _ in range(rounds) for each in source.sample(every, len(every))]
    return [_at(fault, source.randrange(2)) for fault in faults[:count]]


def expected_outcome(fault: Fault) -> Outcome:
    """Return what the fault must lead to."""
    if fault.ending is Ending.CANCEL:
        return Outcome.CANCELLED
    if fault.ending is Ending.CONTINUE:
        return Outcome.NOTHING
    if fault.ending is Ending.FAIL:
        return Outcome.FAILED
    is_frozen = fault.signal is signal.SIGSTOP
    if fault.target is Target.MASTER and not is_frozen:
        return Outcome.MASTER_RESTART
    if fault.target is Target.PROCESS and fault.mode is Mode.BATCH:
        return Outcome.GROUP_RESTART
    return Outcome.FLINK_RESTART


def expected_cause(fault: Fault) -> str:
    """Return a pattern for the text that names what died, for FAILED and FLINK_RESTART."""
    if fault.target is Target.TASK_MANAGER:  # Flink's own words
        return r"(?i)task ?manager.*(lost|closed|no longer reachable|timed out)"
    is_known = fault.target is Target.PROCESS or fault.moment not in EARLY
    worker = rf"worker-{fault.index if is_known else '[01]'}\b"
    if fault.signal is signal.SIGSTOP:
        if never_registers(fault):
            who = (
                "master process has not reported"
                if fault.target is Target.MASTER
                else "missing: "
            )
            return rf"gather_timeout_s.*{who}"
        if fault.target is Target.MASTER:
            return r"Node worker-[01] has not reached the master at \S+ for .*master_lost"
        if fault.target is Target.PROCESS:
            return rf"{worker}: The process was frozen: .*heartbeat_timeout_s"
        return rf"Node {worker} sent no heartbeat for .*heartbeat_timeout_s"
    if fault.target is Target.MASTER:
        return rf"The master process of cluster \S+ was ended by signal {fault.signal.name}"
    if fault.target is Target.NODE:
        return rf"The node process of {worker} was ended by signal {fault.signal.name}"
    return rf"(?s){worker}.*ended by {fault.signal.name}"


def never_registers(fault: Fault) -> bool:
    """Whether it keeps the cluster from gathering, which only the limit of that ends."""
    if fault.signal is not signal.SIGSTOP:
        return False
    if fault.moment is Moment.START:
        return fault.target in (Target.NODE, Target.MASTER)
    return fault.moment is Moment.GATHERING and fault.target is Target.NODE


def _can_be(fault: Fault) -> bool:
    if fault.target is Target.TASK_MANAGER and fault.ending is not Ending.RECOVER:
        return False
    is_frozen = fault.signal is signal.SIGSTOP
    if fault.target is Target.PROCESS and fault.moment is Moment.GATHERING:
        return False  # processes start when the nodes have gathered
    if fault.mode is Mode.BATCH and fault.moment is Moment.FULL:
        return False  # there is no queue
    if not is_frozen:
        return fault.ending in (Ending.RECOVER, Ending.FAIL)
    if never_registers(fault):  # nothing restarts for it: a late node is no lost one
        return fault.ending is not Ending.RECOVER
    return True


def _pairs(fault: Fault) -> set[frozenset[Enum]]:
    values = (fault.mode, fault.target, fault.signal, fault.moment, fault.ending)
    return {frozenset(pair) for pair in itertools.combinations(values, 2)}


def _at(fault: Fault, index: int) -> Fault:
    return Fault(
        mode=fault.mode,
        target=fault.target,
        signal=fault.signal,
        moment=fault.moment,
        ending=fault.ending,
        index=index,
    )
