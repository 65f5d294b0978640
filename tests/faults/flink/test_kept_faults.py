"""A training whose state is in Flink's checkpoints bears every fault of its processes.

One job of each framework gets one after the other. In the end there must be every row once,
with the count and the checksum of all before it, the steps without a gap, and the model of one
process that makes the same steps: what a job without faults would have left.
"""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import pytest

from tests.faults.chaos.jobs import Case
from tests.memory_group import NoMemoryGroupError, memory_group
from tests.waiting import until

from .ordeal import Blow, Ordeal, killed, open_ordeal
from .sight import members

_ROWS = 64_000  # 200 s of slow steps: none of the blows may outlast them


def crash(ordeal: Ordeal) -> None:
    os.kill(ordeal.process(0), signal.SIGSEGV)


def kill_node(ordeal: Ordeal) -> None:
    os.kill(ordeal.node(0), signal.SIGKILL)


def kill_both_and_hear_of_the_second_first(ordeal: Ordeal) -> None:
    """Within a fraction of a millisecond; the node that would tell of the first is frozen."""
    pids = [ordeal.process(index) for index in range(2)]
    os.kill(ordeal.node(0), signal.SIGSTOP)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def freeze_until_a_checkpoint_fails(ordeal: Ordeal) -> None:
    pid = ordeal.process(1)
    before = ordeal.view.failed_checkpoints()
    os.kill(pid, signal.SIGSTOP)
    ordeal.until(lambda: ordeal.view.failed_checkpoints() > before, "a checkpoint to fail")
    os.kill(pid, signal.SIGCONT)


def freeze_for_good(ordeal: Ordeal) -> None:
    os.kill(ordeal.process(0), signal.SIGSTOP)


def freeze_node(ordeal: Ordeal) -> None:
    os.kill(ordeal.node(1), signal.SIGSTOP)


def kill_master(ordeal: Ordeal) -> None:
    former = ordeal.master()
    os.kill(former, signal.SIGKILL)
    until(
        lambda: [e for e in members() if e.kind == "master" and e.pid != former],
        "a new master",
    )


def freeze_master(ordeal: Ordeal) -> None:
    os.kill(ordeal.master(), signal.SIGSTOP)


def starve(group: Path) -> Blow:
    def strike(ordeal: Ordeal) -> None:
        order = ordeal.folder / "starve-1"
        draft = order.with_name("draft")
        draft.write_text(str(group))
        draft.replace(order)

    return Blow(
        name="out of memory",
        strike=strike,
        cause=r"(?s)worker-1: [^\n]*memory ran out.*was ended by SIGKILL\.",
    )


OF_EITHER_FRAMEWORK = [
    Blow(name="segmentation fault", strike=crash, cause=killed(0, "SIGSEGV")),
    Blow(
        name="frozen until a checkpoint has failed",
        strike=freeze_until_a_checkpoint_fails,
        cause=None,
    ),
    Blow(
        name="frozen for good",
        strike=freeze_for_good,
        cause=r"worker-0: The process was frozen: .*`timeouts\.heartbeat_timeout_s`",
    ),
    Blow(
        name="the second death is heard of first",
        strike=kill_both_and_hear_of_the_second_first,
        cause=killed(1, "SIGKILL"),
    ),
    Blow(
        name="node killed",
        strike=kill_node,
        cause=r"The node process of worker-0 was ended by signal SIGKILL",
    ),
    Blow(name="master killed", strike=kill_master, cause=None),
]
OF_NODE_AND_MASTER = [  # processes without any framework in them
    Blow(
        name="node frozen",
        strike=freeze_node,
        cause=r"Node worker-1 sent no heartbeat for .*heartbeat_timeout_s",
    ),
    Blow(
        name="master frozen",
        strike=freeze_master,
        cause=r"Node worker-[01] has not reached the master at \S+ for .*master_lost",
    ),
]


@pytest.mark.timeout(420)  # up to eight restarts, each with processes that import
@pytest.mark.parametrize(
    ("framework", "blows"),
    [
        ("pytorch", [*OF_EITHER_FRAMEWORK, *OF_NODE_AND_MASTER]),
        pytest.param("tensorflow", OF_EITHER_FRAMEWORK, marks=pytest.mark.long),
    ],
)
def test_a_training_bears_every_fault_and_counts_every_row_once(
    framework: Literal["pytorch", "tensorflow"], blows: list[Blow], tmp_path: Path
) -> None:
    no_group = ""
    case = Case(framework, 2, _ROWS, 100_000)
    with ExitStack() as stack:
        try:
            blows = [starve(stack.enter_context(memory_group(tmp_path.name))), *blows]
        except NoMemoryGroupError as exc:
            no_group = str(exc)
        ordeal = stack.enter_context(open_ordeal(case))
        for blow in blows:
            ordeal.bear(blow)
        ordeal.finish()
    if no_group:
        pytest.skip(f"all but the OOM killer: {no_group}")
