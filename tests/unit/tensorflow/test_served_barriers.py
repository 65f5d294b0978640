"""Workers on parameter servers: what is captured at a barrier is all rows before it, no other.

Without TensorFlow: the servers are a list to which each worker's updates come late, as those of
TensorFlow do; `rest` waits for them.
"""

from __future__ import annotations

import itertools
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from headrace.config import TimeoutConfig
from headrace.errors import CollectiveError, ProtocolError, WaitTimeoutError
from headrace.exchange import Barrier
from headrace.role import BatchReader, InputEnded, ReadyBatch
from headrace.role.at_rest import meet_at_rest
from headrace.role.barriers import Barriers
from headrace.role.peers import meet_peers
from headrace.tensorflow.served import ServedSteps
from tests.unit.role.barrier_scripts import Rows, Script, ScriptFeed, Silence
from tests.unit.role.test_common_barrier import Schedule, schedules
from tests.unit.role.test_star import Meeting, spec
from tests.waiting import pause_for

_ROWS = 4
_LIMITS = TimeoutConfig(checkpoint_hold_timeout_s=37.0, collective_timeout_s=600.0)


@pytest.fixture(autouse=True, scope="module")
def _quickly() -> Any:
    """Workers that look at their queues more often, so that schedules take less time."""
    with pytest.MonkeyPatch.context() as patched:
        for module in ("headrace.role.at_rest", "headrace.tensorflow.served"):
            patched.setattr(f"{module}.ATTEND_EVERY_S", 0.002)
        yield


class Servers:
    """A count of rows and a sum of numbers."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    @property
    def value(self) -> tuple[int, int]:
        return len(self.numbers), sum(self.numbers)


@dataclass
class Worker:
    """Trains on a script, as an entry function does."""

    index: int
    parallelism: int
    meeting: Meeting
    servers: Servers
    feed: ScriptFeed
    epochs: int = 1
    leave_after: int | None = None
    spool_dir: Path | None = None
    fails: bool = False
    kept: dict[int, tuple[int, int]] = field(default_factory=dict)
    own: dict[int, tuple[int, int]] = field(default_factory=dict)
    role: str = "worker"

    def __post_init__(self) -> None:
        self.sent: list[int] = []
        self.mine = Servers()
        self.barriers = Barriers(self.feed, self._capture)
        self.steps = ServedSteps(self)
        ticks = itertools.count()
        self.reader = BatchReader(
            self.feed,
            rows=_ROWS,
            epochs=self.epochs,
            spool_dir=self.spool_dir,
            clock=lambda: float(next(ticks)),
            barriers=self.barriers,
        )

    @property
    def is_saver(self) -> bool:
        return self.index == 0

    def publish(self, key: str, value: str) -> None:
        self.meeting.publish(key, value)

    def lookup(self, key: str, timeout_s: float) -> str:
        return self.meeting.lookup(key, timeout_s)

    def __call__(self) -> Worker:
        group = spec(self.index, self.parallelism)
        at_rest = meet_at_rest(group, self.meeting, self._rest, _LIMITS)
        try:
            self.steps.rest_with(at_rest, self.barriers)
            self._run()
        finally:
            self.steps.close()
            self.reader.close()
        return self

    def _run(self) -> None:
        batches = 0
        while batches != self.leave_after:
            event = self.steps.wait(self.reader.poll)
            if isinstance(event, InputEnded):
                break
            if isinstance(event, ReadyBatch):
                batches += 1
                numbers = event.columns.column(0).to_pylist()
                self.mine.numbers += numbers
                self.sent += numbers  # on their way
                if self.fails:
                    msg = "cannot"
                    raise RuntimeError(msg)
            else:
                self.steps.end_pass(self._attend)
        self.steps.finish(self._attend)
        for _ in range(10):
            self._attend()

    def _attend(self) -> None:
        self.feed.attend()
        if self.leave_after is None:
            self.reader.attend()
        else:
            for _ in range(64):
                if not isinstance(self.reader.poll(0), ReadyBatch):
                    break

    def _rest(self) -> None:
        self.servers.numbers += self.sent
        self.sent = []

    def _capture(self, checkpoint_id: int | None) -> None:
        if checkpoint_id is None:
            return
        self.own[checkpoint_id] = self.mine.value
        if self.index == 0:
            self.kept[checkpoint_id] = self.servers.value


def train(
    *scripts: Script,
    later: Sequence[Sequence[Barrier]] | None = None,
    aborts: dict[int, int] | None = None,
    **options: Sequence[Any],
) -> list[Worker]:
    """Run a worker for each script; `later` and `options` have one for each."""
    meeting, servers = Meeting(), Servers()
    workers = [
        Worker(
            index,
            len(scripts),
            meeting,
            servers,
            ScriptFeed(script, later=later[index] if later else (), aborts=aborts or {}),
            **{name: given[index] for name, given in options.items()},
        )
        for index, script in enumerate(scripts)
    ]
    with ThreadPoolExecutor(len(workers)) as pool:
        return [each.result() for each in [pool.submit(worker) for worker in workers]]


def require_exact(workers: Sequence[Worker]) -> None:
    """What was kept is what all workers had done when they answered, each by itself."""
    for checkpoint, kept in workers[0].kept.items():
        if all(checkpoint in each.own for each in workers):
            done = [each.own[checkpoint] for each in workers]
            assert kept == (sum(rows for rows, _ in done), sum(total for _, total in done))


def answered(workers: Sequence[Worker]) -> list[list[int]]:
    return [sorted(each.own) for each in workers]


def test_barriers_at_different_batches_are_answered_when_all_are_at_rest() -> None:
    workers = train([Rows(4), Barrier(1), Rows(8)], [*[Rows(4)] * 5, Barrier(1), Rows(4)])
    assert answered(workers) == [[1], [1]]
    assert workers[0].kept == {1: (24, sum(range(4)) + sum(range(20)))}
    assert workers[0].servers.value[0] == 36


def test_an_idle_worker_is_at_rest_as_soon_as_it_reaches_the_barrier() -> None:
    silent: Script = [*[Silence()] * 6, Barrier(1), *[Silence()] * 3, Rows(4)]
    busy: Script = [Rows(8), Barrier(1)]
    for scripts in ([silent, busy], [busy, silent]):
        workers = train(*scripts)
        assert workers[0].kept == {1: (8, 28)}


def test_worker_0_answers_for_the_servers_until_the_last_row_of_the_others() -> None:
    workers = train(
        [Rows(4)],
        [*[Rows(4)] * 3, Barrier(1), Rows(8)],
        later=([Barrier(1), Barrier(2)], [Barrier(2)]),
    )
    assert answered(workers) == [[1, 2], [1, 2]]
    assert workers[0].kept == {1: (16, 6 + sum(range(12))), 2: (24, 6 + sum(range(20)))}


def test_a_worker_that_has_ended_holds_up_nobody() -> None:
    workers = train([*[Rows(4)] * 3, Barrier(1), Rows(8)], [Rows(4)])
    assert workers[0].kept == {1: (16, 72)}


def test_worker_0_that_left_its_loop_drops_rows_up_to_the_barrier_and_answers_it() -> None:
    script: Script = [*[Rows(4)] * 6, Barrier(1), *[Rows(4)] * 6]
    workers = train(script, script, leave_after=(2, None))
    assert workers[0].kept == {1: (8 + 24, sum(range(8)) + sum(range(24)))}


def test_a_barrier_that_only_one_worker_has_seen_is_given_up_for_a_later_one() -> None:
    early: Script = [Barrier(1), Rows(4), Barrier(2)]
    late: Script = [Rows(4), Rows(4), Barrier(2)]
    for scripts in ([early, late], [late, early]):
        workers = train(*scripts)
        assert answered(workers) == [[2], [2]]
        assert workers[0].kept[2][0] == 12


@pytest.mark.parametrize("who", [0, 1])
def test_an_aborted_barrier_frees_the_worker_that_waits_at_it(who: int) -> None:
    scripts: list[Script] = [[Rows(4), Barrier(1), Rows(4)], [Rows(4)] * 3]
    workers = train(*scripts[:: 1 - 2 * who], aborts={1: 3})
    assert workers[0].servers.value[0] == 20


@pytest.mark.timeout(120)
@settings(max_examples=60, deadline=None)
@given(schedules())
def test_any_schedule_ends_and_what_is_kept_is_exact(schedule: Schedule) -> None:
    with tempfile.TemporaryDirectory() as directory:
        places = [Path(directory) / str(number) for number in range(len(schedule.scripts))]
        for place in places:
            place.mkdir()
        workers = train(
            *schedule.scripts,
            later=[[Barrier(10 + n) for n in range(schedule.later)]] * len(places),
            aborts=schedule.incomplete,
            epochs=[schedule.epochs] * len(places),
            spool_dir=places,
            leave_after=schedule.leave_after,
        )
    require_exact(workers)
    assert workers[0].servers.value[0] == sum(len(each.mine.numbers) for each in workers)
    for worker in workers:
        assert worker.barriers.held is None
    if all(leave is None for leave in schedule.leave_after):
        for worker in workers:
            assert schedule.complete <= set(worker.own)


@pytest.mark.parametrize("who", [0, 1])
def test_who_waits_at_a_barrier_is_told_that_another_one_has_failed(who: int) -> None:
    waiting: Script = [Barrier(1), Rows(4)]
    scripts: list[Script] = [waiting, waiting]
    scripts[who] = [Rows(4)]
    lost = lost_by(1 - who, scripts)
    assert (lost.limit_s, lost.setting) == (37.0, "timeouts.checkpoint_hold_timeout_s")
    assert lost.waited_s < 10.0
    told = (
        r"The barrier of the group 'test' failed after \d\.\d s \(limit 37\.0 s, set by "
        r"`timeouts\.checkpoint_hold_timeout_s`\)\. A peer has ended; its own error is the "
        r"cause, and this process ends with it\. Mend that one: a longer limit would not help\."
        r" The library said: .+"
    )
    assert re.fullmatch(told, str(lost))


def test_worker_0_that_waits_for_the_last_rows_is_told_that_no_limit_bounds_that() -> None:
    lost = lost_by(0, [[Rows(4)], [*[Silence()] * 6, Rows(4)]])
    assert (lost.limit_s, lost.setting) == (None, None)
    told = (
        r"The wait for the last rows of the other workers of the group 'test' failed after "
        r"\d\.\d s \(no limit\)\. A peer has ended; its own error is the cause"
    )
    assert re.match(told, str(lost))


def test_a_wait_at_a_barrier_counts_from_that_barrier() -> None:
    meeting = Meeting()
    feed = ScriptFeed([], later=(), aborts={})
    barriers = Barriers(feed)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: meet_peers(spec(1, 2), meeting))
        keeper = meet_at_rest(spec(0, 2), meeting, lambda: None, _LIMITS)
        (connection,) = other.result()
    pause_for(1.5)
    barriers.begin_common(-1)
    barriers.reach(1)
    connection.close()
    try:
        with pytest.raises(CollectiveError) as raised:
            keeper.attend(barriers, 5.0)
    finally:
        keeper.close()
    assert raised.value.waited_s < 1.0


def lost_by(waiting: int, scripts: Sequence[Script]) -> CollectiveError:
    """Return what the worker that waits is told when the other one fails at its first row."""
    who = 1 - waiting
    meeting, servers = Meeting(), Servers()
    workers = [
        Worker(
            index,
            2,
            meeting,
            servers,
            ScriptFeed(script, later=(), aborts={}),
            fails=index == who,
        )
        for index, script in enumerate(scripts)
    ]
    with ThreadPoolExecutor(2) as pool:
        errors = [each.exception() for each in [pool.submit(w) for w in workers]]
    assert "cannot" in str(errors[who])
    lost = errors[waiting]
    assert isinstance(lost, CollectiveError)
    assert lost.is_consequence
    return lost


def test_a_worker_that_never_comes_is_named_with_the_setting() -> None:
    group = spec(0, 2, gather_timeout_s=0.3, met_by="ctx.checkpointed")
    told = r"2 processes of the group.*1 came.*gather_timeout_s.*not called ctx\.checkpointed"
    with pytest.raises(WaitTimeoutError, match=told):
        meet_at_rest(group, Meeting(), lambda: None, _LIMITS)


def test_what_nobody_says_is_refused() -> None:
    meeting = Meeting()
    feed = ScriptFeed([], later=(), aborts={})
    barriers = Barriers(feed)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: meet_peers(spec(1, 2), meeting))
        keeper = meet_at_rest(spec(0, 2), meeting, lambda: None, _LIMITS)
        (connection,) = other.result()
    connection.sendall(bytes([9]) + bytes(15))
    try:
        with pytest.raises(ProtocolError, match=r"told 9"):
            keeper.attend(barriers, 5.0)
    finally:
        keeper.close()
        connection.close()
