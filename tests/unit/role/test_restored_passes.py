"""A process that reads its input several times goes on where it was, in whichever pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import PlanError, ProtocolError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed, SpoolContent, SpoolWriter
from headrace.framework.process import StateRef
from headrace.role import HELD_OUT, RoleContext, TrainingContext, TrainingSettings
from headrace.role.alone import Alone
from tests.unit.role.doubles import FakeClock, FakeLink, spec_in

SCHEMA = pa.schema([("x", pa.int64())])
EPOCHS = 3
STREAM: Sequence[Item] = (
    Batch(pa.record_batch([[1, 2, 3]], schema=SCHEMA)),
    Barrier(1),
    Batch(pa.record_batch([[4, 5, 6, 7]], schema=SCHEMA)),
    Barrier(2),
    End(),
)
LATER = range(3, 3 + 10)
"""Checkpoints behind the end of the input: more than there are batches in later passes."""
BEHIND = {1: STREAM[2:], 2: STREAM[4:]}


class SlowBarriers(MemoryFeed):
    """Behind the end of the input each look finds one barrier at most."""

    has_given_one = False

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:
        if self._is_ended and self.has_given_one:
            self.has_given_one = False
            return None
        item = super().receive(timeout_s=timeout_s, says_idle=says_idle)
        self.has_given_one = self._is_ended and isinstance(item, Barrier)
        return item


def restored_by(directory: Path, state: bytes) -> dict[str, Any]:
    place = directory / "state"
    place.write_bytes(state)
    ref = StateRef(path=str(place), index=1, parallelism=2)
    return {"is_restored": True, "states": (ref,)}


def context_in(directory: Path, feed: MemoryFeed, **spec: Any) -> TrainingContext:
    context = TrainingContext(
        spec=spec_in(directory, **spec), link=FakeLink(), feed=feed, clock=FakeClock(1.0)
    )
    context.use_settings(TrainingSettings(epochs=EPOCHS))
    return context


def run(
    directory: Path, items: Sequence[Item], *, by_passes: bool = False, **spec: Any
) -> tuple[SlowBarriers, list[Any]]:
    """Keep what was seen in the state, so a restored run ends with all of it."""
    feed = SlowBarriers(items, input_schema=SCHEMA)
    ctx = context_in(directory, feed, **spec)
    seen = ctx.state.setdefault("seen", [])
    if by_passes:
        for batches in ctx.passes(2):
            for batch in batches:
                seen.append((ctx.epoch, batch["x"].tolist()))
    else:
        for batch in ctx.batches(2):
            seen.append((ctx.epoch, batch["x"].tolist()))
    ctx.close(is_success=True)
    return feed, seen


@pytest.mark.parametrize("by_passes", [False, True])
def test_every_place_can_be_gone_on_from(tmp_path: Path, by_passes: bool) -> None:
    barriers = [Barrier(number) for number in LATER]
    feed, expected = run(tmp_path, [*STREAM, *barriers], by_passes=by_passes)
    rows = [x for epoch, xs in expected if epoch for x in xs]
    assert rows == [1, 2, 3, 4, 5, 6, 7] * (EPOCHS - 1)
    states = [(number, state) for number, state in feed.states if number is not None]
    assert [number for number, _ in states] == [1, 2, *LATER]
    for number, state in states:
        items = BEHIND.get(number, [End()])
        _, seen = run(tmp_path, items, by_passes=by_passes, **restored_by(tmp_path, state))
        assert seen == expected, number


def test_a_restored_process_knows_its_pass_before_it_reads(tmp_path: Path) -> None:
    feed, _ = run(tmp_path, [*STREAM, *(Barrier(number) for number in LATER)])
    states = dict(feed.states)
    for number, epoch in ((1, 0), (LATER[-1], EPOCHS - 1)):
        empty = MemoryFeed([End()], input_schema=SCHEMA)
        ctx = context_in(tmp_path, empty, **restored_by(tmp_path, states[number]))
        assert ctx.epoch == epoch
        ctx.close(is_success=False)


HELD_SCHEMA = pa.schema([*SCHEMA, (HELD_OUT, pa.bool_())])


def run_with_held_out(
    directory: Path, items: Sequence[Item], **spec: Any
) -> tuple[SlowBarriers, list[int]]:
    """Look at the held-out rows before each batch is used, in later passes."""
    feed = SlowBarriers(items, input_schema=HELD_SCHEMA)
    ctx = TrainingContext(
        spec=spec_in(directory, **spec), link=FakeLink(), feed=feed, clock=FakeClock(1.0)
    )
    ctx.use_settings(TrainingSettings(epochs=2, has_held_out=True))
    seen = ctx.state.setdefault("seen", [])
    for batch in ctx.batches(2):
        if ctx.epoch:
            assert [each["x"].tolist() for each in ctx.held_out(1)] == [[101], [102]]
        seen.extend(batch["x"].tolist())
    ctx.close(is_success=True)
    return feed, seen


def test_a_look_at_the_held_out_rows_does_not_say_that_the_batch_was_used(
    tmp_path: Path,
) -> None:
    xs = [1, 2, 3, 4, 5, 101, 102]
    rows = pa.record_batch([xs, [x > 100 for x in xs]], schema=HELD_SCHEMA)
    feed, expected = run_with_held_out(tmp_path, [Batch(rows), End(), *map(Barrier, LATER)])
    assert expected == [1, 2, 3, 4, 5] * 2
    states = [state for number, state in feed.states if number is not None]
    assert len(states) > 3  # one between two batches at least
    for state in states:
        _, seen = run_with_held_out(tmp_path, [End()], **restored_by(tmp_path, state))
        assert seen == expected


@pytest.mark.parametrize("epochs", [1, 2])
def test_fewer_passes_than_before_are_refused(tmp_path: Path, epochs: int) -> None:
    feed, _ = run(tmp_path, [*STREAM, *(Barrier(number) for number in LATER)])
    last = dict(feed.states)[LATER[-1]]
    empty = MemoryFeed([End()], input_schema=SCHEMA)
    ctx = context_in(tmp_path, empty, **restored_by(tmp_path, last))
    with pytest.raises(PlanError, match=rf"pass 3 .* this job makes {epochs}"):
        ctx.batches(2, epochs)
    ctx.close(is_success=False)


def test_several_passes_behind_the_checkpoint_of_one_are_refused(tmp_path: Path) -> None:
    feed = MemoryFeed(STREAM, input_schema=SCHEMA)
    ctx = RoleContext(spec=spec_in(tmp_path), link=FakeLink(), feed=feed)
    ctx.state["rows"] = 0
    for _ in ctx.batches(2):
        pass
    ctx.close(is_success=True)
    empty = MemoryFeed([End()], input_schema=SCHEMA)
    restored = context_in(tmp_path, empty, **restored_by(tmp_path, feed.states[0][1]))
    with pytest.raises(PlanError, match=r"checkpoint of one pass"):
        restored.batches(2)
    restored.close(is_success=False)


def test_new_rows_in_a_later_pass_are_refused(tmp_path: Path) -> None:
    feed, _ = run(tmp_path, [*STREAM, *(Barrier(number) for number in LATER)])
    state = dict(feed.states)[LATER[3]]
    with pytest.raises(PlanError, match=r"whose input had ended"):
        run(tmp_path, [STREAM[0], End()], **restored_by(tmp_path, state))


def read_all(ctx: TrainingContext) -> list[int]:
    return [x for batch in ctx.batches(2) for x in batch["x"].tolist()]


def test_several_passes_behind_a_checkpoint_without_rows_are_refused(tmp_path: Path) -> None:
    feed = MemoryFeed(STREAM, input_schema=SCHEMA)
    ctx = context_in(tmp_path, feed)
    assert read_all(ctx) == [1, 2, 3, 4, 5, 6, 7] * EPOCHS
    ctx.close(is_success=True)
    assert feed.states == []  # nobody has asked for one: the rows stay where they are
    restored = context_in(
        tmp_path, MemoryFeed(BEHIND[1], input_schema=SCHEMA), is_restored=True
    )
    with pytest.raises(PlanError, match=r"epochs=3 .* does not hold the rows before it"):
        restored.batches(2)
    restored.close(is_success=False)


def test_a_state_that_is_still_empty_keeps_the_rows(tmp_path: Path) -> None:
    feed = MemoryFeed(STREAM, input_schema=SCHEMA)
    ctx = context_in(tmp_path, feed)
    assert ctx.state == {}
    expected = read_all(ctx)
    ctx.close(is_success=True)
    items = MemoryFeed(BEHIND[1], input_schema=SCHEMA)
    restored = context_in(tmp_path, items, **restored_by(tmp_path, dict(feed.states)[1]))
    assert read_all(restored) == expected[3:]
    restored.close(is_success=True)


class CommonContext(TrainingContext):
    """Trains in common with nobody, so that it drops what it does not read."""

    def data_parallel(self) -> None:
        self._is_data_parallel = True
        self._steps = AtTheEnd()


class AtTheEnd(Alone):
    """Attends until the input is used up."""

    def finish(self, attend: Callable[[], object]) -> None:
        for _ in range(10):
            attend()


def test_rows_that_are_dropped_are_kept_for_later_passes(tmp_path: Path) -> None:
    """A worker returns without reading; the restored one of every place reads the rest."""

    def context(feed: MemoryFeed, **spec: Any) -> CommonContext:
        context = CommonContext(spec=spec_in(tmp_path, **spec), link=FakeLink(), feed=feed)
        context.use_settings(TrainingSettings(epochs=EPOCHS))
        context.data_parallel()
        context.state["kept"] = True
        return context

    every = [1, 2, 3, 4, 5, 6, 7] * EPOCHS
    feed = SlowBarriers([*STREAM, *map(Barrier, LATER)], input_schema=SCHEMA)
    context(feed).close(is_success=True)
    states = [(number, state) for number, state in feed.states if number is not None]
    assert [number for number, _ in states][:2] == [1, 2]
    for number, state in states:
        rest = MemoryFeed(BEHIND.get(number, [End()]), input_schema=SCHEMA)
        restored = context(rest, **restored_by(tmp_path, state))
        seen = read_all(restored)
        assert seen == every[len(every) - len(seen) :], number
        assert number != 1 or len(seen) == len(every) - 3
        restored.close(is_success=True)
        rest = MemoryFeed(BEHIND.get(number, [End()]), input_schema=SCHEMA)
        context(rest, **restored_by(tmp_path, state)).close(is_success=True)  # again unread
        assert rest.has_sent_end


def test_rows_with_other_columns_are_refused(tmp_path: Path) -> None:
    writer = SpoolWriter(tmp_path, SCHEMA, rows=2)
    writer.write(Batch(pa.record_batch([[1, 2, 3]], schema=SCHEMA)))
    content = writer.content()
    assert isinstance(content, SpoolContent)
    writer.close()
    other = SpoolWriter(tmp_path, pa.schema([("y", pa.int64())]), rows=2)
    with pytest.raises(ProtocolError, match=r"have the columns \['x', .* input has \['y'"):
        other.refill(content)
    other.close()
