"""The parts of the master for themselves: heartbeats, directives, status."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from io import FileIO
from pathlib import Path

import msgspec
import pytest

from headrace.config import TimeoutConfig
from headrace.framework.jvm_lines import FailLine, StatusLine, ToJvm
from headrace.framework.machine import (
    ALL_FINISH,
    Arc,
    Job,
    JobMachine,
    JobState,
    Machine,
    MasterStarted,
    NodeFacts,
    NodeRegistered,
    RoleFacts,
    Step,
)
from headrace.framework.master.__main__ import _EventLog
from headrace.framework.master.directives import Directives
from headrace.framework.master.heartbeats import Heartbeats
from headrace.framework.master.master import Master
from headrace.framework.master.observation import Observation, build_status
from headrace.framework.messages import StopProcess


class ManualClock:
    """Time stands still until the test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


def test_only_nodes_over_the_limit_are_lost_and_each_once() -> None:
    beats = Heartbeats(10.0)
    beats.beat("a", 0.0)
    beats.beat("b", 1.0)
    beats.beat("a", 5.0)
    assert beats.take_lost(11.0) == []
    assert beats.next_check(11.0) == 0.0
    assert beats.take_lost(11.5) == [("b", 10.5)]
    assert beats.take_lost(11.5) == []
    assert beats.next_check(11.5) == 3.5


def test_a_forgotten_node_cannot_be_lost() -> None:
    beats = Heartbeats(10.0)
    beats.beat("a", 0.0)
    beats.forget("a")
    assert beats.take_lost(100.0) == []
    assert beats.next_check(100.0) == 10.0


def test_time_in_which_the_watcher_itself_stood_still_is_forgiven() -> None:
    beats = Heartbeats(10.0)
    beats.beat("a", 0.0)
    beats.forgive(60.0)
    assert beats.take_lost(65.0) == []
    assert beats.take_lost(71.0) == [("a", 11.0)]


def test_a_late_reader_gets_the_latest_directive_only() -> None:
    async def scenario() -> list[bytes]:
        directives = Directives()
        for attempt in range(1, 4):
            directives.set(["a"], StopProcess(attempt=attempt))
        stream = directives.follow("a")
        first = await stream.__anext__()
        directives.set(["b"], StopProcess(attempt=9))
        directives.set(["a"], StopProcess(attempt=4))
        second = await stream.__anext__()
        directives.close()
        return [first, second, *[data async for data in stream]]

    received = [msgspec.json.decode(data)["attempt"] for data in asyncio.run(scenario())]
    assert received == [3, 4]


def test_a_newer_stream_of_the_same_node_ends_the_older_one() -> None:
    async def scenario() -> None:
        directives = Directives()
        older = asyncio.ensure_future(_drain(directives, "a"))
        await asyncio.sleep(0)
        newer = asyncio.ensure_future(_drain(directives, "a"))
        assert await asyncio.wait_for(older, 5) == 0
        directives.set(["a"], StopProcess(attempt=1))
        await asyncio.sleep(0)
        directives.close()
        assert await asyncio.wait_for(newer, 5) == 1

    asyncio.run(scenario())


def test_the_status_shows_lost_and_registered_nodes_with_their_latest_values() -> None:
    job = ALL_FINISH.initial_job({"w": RoleFacts(planned_parallelism=2)}, max_restarts=0)
    seen = Observation(host="h", rows_in=1, rows_out=2, report={"loss": 0.5})
    status = build_status(job, {"w-0": seen})
    assert (status.state, status.expected, status.registered) == ("GATHERING", None, 0)
    assert status.nodes["w-0"].state == "lost"
    assert status.nodes["w-0"].report == {"loss": 0.5}


def test_the_status_names_ten_nodes_at_most_that_are_not_there() -> None:
    """Of those that run: Flink's adaptive scheduler may have started fewer than planned."""
    node = NodeFacts(role="w", index=1, host="h", instance="one")
    planned = {"w": RoleFacts(planned_parallelism=3), "ps": RoleFacts(planned_parallelism=1)}
    job = ALL_FINISH.initial_job(planned, max_restarts=0)
    assert build_status(job, {}).missing == ("w-*", "ps-*")
    two = {**planned, "w": RoleFacts(planned_parallelism=3, parallelism=2)}
    assert build_status(replace(job, roles=two, nodes={"w-1": node}), {}).missing == (
        "w-0",
        "ps-*",
    )
    many = {"w": RoleFacts(planned_parallelism=3, parallelism=40)}
    missing = build_status(replace(job, roles=many, nodes={"w-1": node}), {}).missing
    assert missing == ("w-0", *(f"w-{index}" for index in range(2, 11)))


def test_a_silent_node_becomes_an_event() -> None:
    async def scenario() -> list[ToJvm]:
        clock, lines = ManualClock(), list[ToJvm]()
        master = _master(ALL_FINISH, lines, clock, has_input=True)
        master.post(MasterStarted(attempt=1))
        master.post(_registration())
        assert master.note_sign_of_life("w-0", "one")
        clock.now += 9.0
        master._take_lost()
        assert master.job.state is JobState.RUNNING
        clock.now += 2.0
        master._take_lost()
        master.close()
        return lines

    fail = asyncio.run(scenario())[-1]
    assert isinstance(fail, FailLine)
    assert "no heartbeat for 11.0 s (limit 10.0 s" in fail.message


def test_the_status_of_a_transition_leaves_before_its_commands_are_carried_out() -> None:
    async def scenario() -> tuple[list[ToJvm], int]:
        lines: list[ToJvm] = []
        master = _master(ALL_FINISH, lines, ManualClock())
        master.post(MasterStarted(attempt=1))
        before = len(lines)
        master.post(_registration())
        master.close()
        return lines, before

    lines, before = asyncio.run(scenario())
    line = lines[before]
    assert isinstance(line, StatusLine)
    assert line.status.state == "RUNNING"


def test_a_handler_that_raises_fails_the_job_with_its_traceback_once() -> None:
    def broken(job: Job, event: NodeRegistered) -> Step:
        raise KeyError(event.node)

    table = {**ALL_FINISH.table}
    table[JobState.GATHERING, NodeRegistered] = Arc(broken, frozenset({JobState.RUNNING}))

    async def scenario() -> list[ToJvm]:
        lines: list[ToJvm] = []
        master = _master(Machine(name="mine", table=table), lines, ManualClock())
        master.post(MasterStarted(attempt=1))
        master.post(_registration())
        master.post(_registration())
        master.close()
        return lines

    (fail,) = [line for line in asyncio.run(scenario()) if isinstance(line, FailLine)]
    assert "KeyError: 'w-0'" in fail.message
    assert not fail.is_restartable


@pytest.mark.parametrize(("nodes", "every_s"), [(1, 1.0), (400, 1.0), (1000, 2.5)])
def test_heartbeats_are_rarer_in_a_large_cluster(nodes: int, every_s: float) -> None:
    async def scenario() -> float:
        master = _master(ALL_FINISH, [], ManualClock())
        master.post(MasterStarted(attempt=1))
        master.post(_registration(parallelism=nodes))
        master.close()
        return master.heartbeat_every_s

    assert asyncio.run(scenario()) == every_s


def _master(
    machine: Machine, lines: list[ToJvm], clock: ManualClock, *, has_input: bool = False
) -> Master:
    roles = {"w": RoleFacts(planned_parallelism=1, has_input=has_input)}
    return Master(
        machine=JobMachine(machine, machine.initial_job(roles, max_restarts=0)),
        timeouts=TimeoutConfig(),
        clock=clock,
        send=lines.append,
    )


def _registration(parallelism: int = 1) -> NodeRegistered:
    return NodeRegistered(
        attempt=1,
        node="w-0",
        instance="one",
        role="w",
        index=0,
        parallelism=parallelism,
        host="h",
    )


async def _drain(directives: Directives, node: str) -> int:
    count = 0
    async for _ in directives.follow(node):
        count += 1
    return count


class NearlyFull(FileIO):
    """A file whose disk takes 10 bytes in all, as write(2) tells it: first a part, no error."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        return super().write(data[: max(0, 10 - self.tell())])


def test_the_event_log_ends_with_a_whole_line_where_the_disk_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events"
    with NearlyFull(path, "w") as file:
        log = _EventLog(file)
        for line in (b"first\n", b"second\n", b"3\n"):
            log.write(line)
    assert path.read_bytes() == b"first\n"
    assert "4 of 7 bytes could be written" in caplog.text
