"""A process that reads its input several times goes on where it was, in whichever pass."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import PlanError, ProtocolError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed, SpoolContent, SpoolWriter
from headrace.framework.process import StateRef
from headrace.role import RoleContext, TrainingContext, TrainingSettings
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
