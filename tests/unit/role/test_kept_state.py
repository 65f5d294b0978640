"""What an entry function says about its state, and what a restored one finds."""

from __future__ import annotations

import gc
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from headrace.errors import ConfigError, ExchangeError, PlanError, UsageError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.framework.process import StateRef
from headrace.role import RoleContext
from headrace.role.entry import RoleEntry
from headrace.role.restored import require_not_restored
from headrace.role.state_format import decode_state
from tests.unit.role.doubles import FakeLink, spec_in

SCHEMA = pa.schema([("x", pa.int64())])


class Counter:
    """A model of two numbers, one of which has a shape."""

    def __init__(self, size: int = 2) -> None:
        self.count = 0
        self.sums = np.zeros(size)

    def add(self, batch: dict[str, Any]) -> None:
        self.count += len(batch["x"])
        self.sums += batch["x"].sum()

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "inner": {"sums": self.sums}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        sums = state["inner"]["sums"]
        if sums.shape != self.sums.shape:
            msg = "a wrong shape"
            raise ValueError(msg)
        self.count = state["count"]
        self.sums[:] = sums


def batch(*xs: int) -> Batch:
    return Batch(pa.record_batch([list(xs)], schema=SCHEMA))


def feed_of(*items: Item, output: pa.Schema | None = None) -> MemoryFeed:
    return MemoryFeed(items, input_schema=SCHEMA, output_schema=output)


def run(
    directory: Path, feed: MemoryFeed, entry: Callable[[RoleContext], object], **spec: Any
) -> None:
    RoleEntry(entry)(spec_in(directory, **spec), FakeLink(), feed=feed)


def state_file(directory: Path, content: bytes) -> dict[str, Any]:
    """Return what a process is told that is restored with this state."""
    path = directory / "state"
    path.write_bytes(content)
    return {"is_restored": True, "states": (StateRef(path=str(path), index=1, parallelism=2),)}


def count_all(ctx: RoleContext) -> None:
    counter = Counter()
    ctx.checkpointed(counter=counter)
    for rows in ctx.batches(rows=100):
        counter.add(rows)
        ctx.state["batches"] = ctx.state.get("batches", 0) + 1


@pytest.fixture
def states(tmp_path: Path) -> list[tuple[int | None, bytes]]:
    feed = feed_of(batch(1, 2), Barrier(4), batch(3), Barrier(5), batch(4), End())
    run(tmp_path, feed, count_all)
    return feed.states


def test_a_state_is_that_of_the_rows_before_its_barrier(
    states: list[tuple[int | None, bytes]],
) -> None:
    seen = []
    for checkpoint_id, content in states:
        state = decode_state(memoryview(bytearray(content)))
        counter = state["objects"]["counter"]
        seen.append(
            (checkpoint_id, counter["count"], *counter["inner"]["sums"], state["values"])
        )
    assert seen == [
        (4, 2, 3.0, 3.0, {"batches": 1}),
        (5, 3, 6.0, 6.0, {"batches": 2}),
        (None, 4, 10.0, 10.0, {"batches": 3}),  # at the end of the input
        (None, 4, 10.0, 10.0, {"batches": 3}),  # at the end of the process
    ]


def test_a_restored_process_goes_on_where_the_checkpoint_was(
    states: list[tuple[int | None, bytes]], tmp_path: Path
) -> None:
    feed = feed_of(batch(3), Barrier(9), End())
    run(tmp_path, feed, count_all, **state_file(tmp_path, states[0][1]))
    state = decode_state(memoryview(bytearray(feed.states[0][1])))
    assert state["objects"]["counter"]["count"] == 3
    assert state["objects"]["counter"]["inner"]["sums"].tolist() == [6.0, 6.0]
    assert state["values"] == {"batches": 2}


def test_the_values_are_there_before_anything_is_named(
    states: list[tuple[int | None, bytes]], tmp_path: Path
) -> None:
    seen = []

    def look(ctx: RoleContext) -> None:
        seen.append(dict(ctx.state))
        ctx.checkpointed(counter=Counter())

    run(tmp_path, feed_of(End()), look, **state_file(tmp_path, states[1][1]))
    assert seen == [{"batches": 2}]


@pytest.mark.parametrize("workers", [2, 1])
@pytest.mark.parametrize("keep", ["checkpointed", "state"])
def test_random_numbers_go_on_where_the_checkpoint_was(
    tmp_path: Path, keep: str, workers: int
) -> None:
    drawn: list[tuple[float, ...]] = []

    def draw(ctx: RoleContext) -> None:
        random.seed(1)
        np.random.seed(1)
        torch.manual_seed(1)
        ctx.merge_state(lambda former: former[0])
        if keep == "checkpointed":
            ctx.checkpointed()
        else:
            ctx.state["rows"] = 0
        drawn[:] = [
            (random.random(), float(np.random.random()), float(torch.rand(())))
            for _ in ctx.batches()
        ]

    feed = feed_of(batch(1), Barrier(3), batch(2), End())
    run(tmp_path, feed, draw)
    expected = drawn[1]
    restored = state_file(tmp_path, feed.states[0][1])  # of worker 1 of 2
    if workers == 1:
        restored |= {"index": 0, "parallelism": 1, "cluster": {"worker": ("h1",)}}
    run(tmp_path, feed_of(batch(2), End()), draw, **restored)
    assert drawn == [expected]


def test_what_the_generators_were_is_let_go_before_the_first_row(tmp_path: Path) -> None:
    mapped = []

    def look(ctx: RoleContext) -> None:
        ctx.state["rows"] = 0
        for _ in ctx.batches():
            gc.collect()
            mapped.append(Path("/proc/self/maps").read_text().count(f"{tmp_path}/state"))

    feed = feed_of(batch(1), Barrier(3), End())
    run(tmp_path, feed, look)
    run(tmp_path, feed_of(batch(2), End()), look, **state_file(tmp_path, feed.states[0][1]))
    assert mapped == [0, 0]


def test_rows_alone_leave_no_state(tmp_path: Path) -> None:
    feed = feed_of(batch(1), Barrier(3), End())
    run(tmp_path, feed, lambda ctx: list(ctx.batches()))
    assert feed.states == []
    assert feed.acknowledged == [(3, 0)]


def test_markers_and_aborted_checkpoints_are_acknowledged_without_a_state(
    tmp_path: Path,
) -> None:
    output = pa.schema([("y", pa.int64())])
    feed = feed_of(batch(1), Barrier(-3), Barrier(4), Barrier(5), End(), output=output)
    feed.aborted_ids = {4}
    run(tmp_path, feed, count_all)
    assert [each for each, _ in feed.acknowledged] == [-3, 4, 5]
    assert [each for each, _ in feed.states] == [5, None]


def test_a_process_that_is_stopped_hands_over_no_state(tmp_path: Path) -> None:
    feed = feed_of(batch(1))
    context = RoleContext(spec=spec_in(tmp_path), link=FakeLink(), feed=feed)
    context.state["rows"] = 1
    context.stop()
    assert feed.has_sent_end
    assert feed.states == []


def test_a_process_that_fails_hands_over_no_state(tmp_path: Path) -> None:
    def fail(ctx: RoleContext) -> None:
        ctx.state["rows"] = 1
        msg = "no"
        raise ValueError(msg)

    feed = feed_of(batch(1))
    with pytest.raises(ValueError, match="no"):
        run(tmp_path, feed, fail)
    assert feed.states == []


def contexts(directory: Path, **spec: Any) -> Iterator[RoleContext]:
    while True:
        yield RoleContext(spec=spec_in(directory, **spec), link=FakeLink(), feed=feed_of(End()))


def test_what_has_no_state_dict_is_refused_with_a_way_out(tmp_path: Path) -> None:
    context = next(contexts(tmp_path))
    with pytest.raises(ConfigError, match=r"a dict has no state_dict and no load_.*ctx\.state"):
        context.checkpointed(counts={})


def test_what_is_named_is_returned_in_its_order(tmp_path: Path) -> None:
    one, two = Counter(), Counter()
    assert next(contexts(tmp_path)).checkpointed(counter=one) is one
    first, second = next(contexts(tmp_path)).checkpointed(z=two, a=one)
    assert (first is two, second is one) == (True, True)
    assert next(contexts(tmp_path)).checkpointed() == ()


def test_it_is_called_once_and_before_the_loop(tmp_path: Path) -> None:
    first, second, *_ = (next(contexts(tmp_path)) for _ in range(2))
    first.checkpointed(counter=Counter())
    with pytest.raises(UsageError, match="called before; name all"):
        first.checkpointed(other=Counter())
    second.batches()
    with pytest.raises(UsageError, match="before the input is read"):
        second.checkpointed(counter=Counter())


@pytest.mark.parametrize("say", [lambda ctx: ctx.state, lambda ctx: ctx.checkpointed()])
def test_a_role_without_input_is_refused(
    tmp_path: Path, say: Callable[[RoleContext], object]
) -> None:
    context = RoleContext(spec=spec_in(tmp_path), link=FakeLink(), feed=None)
    with pytest.raises(UsageError, match=r"this role has none.*ctx\.latest_checkpoint"):
        say(context)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({"other": Counter()}, r"names 'other'.* holds 'counter' of worker-1"),
        (
            {"counter": Counter(), "more": Counter()},
            r"names 'counter', 'more'.* holds 'counter'",
        ),
        ({}, r"names no objects.* holds 'counter'"),
    ],
)
def test_other_names_than_the_checkpoint_holds_are_refused(
    states: list[tuple[int | None, bytes]], tmp_path: Path, names: dict[str, Any], text: str
) -> None:
    context = next(contexts(tmp_path, **state_file(tmp_path, states[0][1])))
    with pytest.raises(PlanError, match=text):
        context.checkpointed(**names)


def test_objects_that_nobody_restores_are_refused_before_the_input_is_read(
    states: list[tuple[int | None, bytes]], tmp_path: Path
) -> None:
    context = next(contexts(tmp_path, **state_file(tmp_path, states[0][1])))
    with pytest.raises(PlanError, match=r"holds 'counter'.*was not called before"):
        context.batches()


def test_objects_behind_a_checkpoint_without_any_are_refused(tmp_path: Path) -> None:
    context = next(contexts(tmp_path, is_restored=True))
    with pytest.raises(PlanError, match=r"names 'counter'.* holds no objects"):
        context.checkpointed(counter=Counter())


def test_an_object_that_does_not_take_its_state_says_what_differs(
    states: list[tuple[int | None, bytes]], tmp_path: Path
) -> None:
    class Other(Counter):
        def state_dict(self) -> dict[str, Any]:
            return {"total": 0, "inner": {"sums": self.sums}}

    context = next(contexts(tmp_path, **state_file(tmp_path, states[0][1])))
    with pytest.raises(PlanError) as caught:
        context.checkpointed(counter=Other(3))
    text = str(caught.value)
    assert "'counter' (a Other) does not take" in text
    assert "ValueError: a wrong shape" in text
    assert "missing in the checkpoint: total\n" in text
    assert "unexpected in the checkpoint: count\n" in text
    assert "inner.sums: shape (2,) in the checkpoint, (3,) here" in text


def allocation_error() -> Exception:
    """Return what torch raises when there is no memory; a `RuntimeError`."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize(
    "scarcity",
    [
        MemoryError("for a copy"),
        OSError(28, "No space left"),
        ExchangeError("disk"),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        allocation_error(),
    ],
)
def test_a_restore_for_which_there_is_no_room_is_no_mistake_of_the_program(
    states: list[tuple[int | None, bytes]], tmp_path: Path, scarcity: Exception
) -> None:
    """It is raised as it is: a `PlanError` would end the job for good."""

    class Other(Counter):
        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise scarcity

    context = next(contexts(tmp_path, **state_file(tmp_path, states[0][1])))
    with pytest.raises(type(scarcity)) as caught:
        context.checkpointed(counter=Other())
    assert caught.value is scarcity


@pytest.mark.parametrize(
    "fill",
    [
        lambda ctx: ctx.state.update(lock=threading.Lock(), fine=1),
        lambda ctx: ctx.checkpointed(lock=Stubborn()),
    ],
)
def test_what_cannot_be_pickled_is_named(
    tmp_path: Path, fill: Callable[[RoleContext], object]
) -> None:
    def entry(ctx: RoleContext) -> None:
        fill(ctx)
        list(ctx.batches())

    with pytest.raises(UsageError, match=r"(ctx.state\['lock'\]|state_dict of 'lock') cannot"):
        run(tmp_path, feed_of(batch(1), Barrier(1), End()), entry)


class Large:
    """Has not the room to be pickled, or else to be unpickled again."""

    def __init__(self, *, is_captured: bool, scarcity: Exception) -> None:
        self.is_captured = is_captured
        self.scarcity = scarcity

    def __reduce__(self) -> Any:
        if self.is_captured:
            return raise_it, (self.scarcity,)
        raise self.scarcity


def raise_it(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("is_captured", [False, True])
@pytest.mark.parametrize(
    "scarcity", [MemoryError("for a copy"), OSError(28, "No space left"), allocation_error()]
)
def test_a_capture_or_a_read_for_which_there_is_no_room_is_none_either(
    tmp_path: Path, scarcity: Exception, is_captured: bool
) -> None:
    def entry(ctx: RoleContext) -> None:
        ctx.state["large"] = Large(is_captured=is_captured, scarcity=scarcity)
        list(ctx.batches())

    feed = feed_of(batch(1), Barrier(1), End())
    facts: dict[str, Any] = {}
    if is_captured:
        run(tmp_path, feed, entry)
        facts = state_file(tmp_path, feed.states[0][1])
    with pytest.raises(type(scarcity)) as caught:
        run(tmp_path, feed_of(batch(1), Barrier(1), End()), entry, **facts)
    assert caught.value.args == scarcity.args


class Stubborn(Counter):
    def state_dict(self) -> dict[str, Any]:
        return {"lock": threading.Lock()}


def test_a_state_that_cannot_be_read_says_whose_it_is(tmp_path: Path) -> None:
    restored = state_file(tmp_path, b"x" * 100)
    with pytest.raises(PlanError, match=r"state of worker-1 .* cannot be read: .* begins with"):
        next(contexts(tmp_path, **restored))


def test_a_class_that_is_gone_is_named_and_one_that_is_found_again_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = ModuleType("user_values")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec("class Mean:\n    total = 0", vars(module))

    def entry(ctx: RoleContext) -> None:
        ctx.state["mean"] = mean = module.Mean()
        mean.total = 7
        list(ctx.batches())

    feed = feed_of(batch(1), Barrier(1), End())
    run(tmp_path, feed, entry)
    restored = state_file(tmp_path, feed.states[0][1])
    kind = module.Mean
    del module.Mean
    told = r"AttributeError: .*'Mean'.*'user_values'.* must be found under its old one as well"
    with pytest.raises(PlanError, match=told):
        next(contexts(tmp_path, **restored))
    module.Average = module.Mean = kind
    assert next(contexts(tmp_path, **restored)).state["mean"].total == 7
    monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(PlanError, match=r"ModuleNotFoundError: No module named 'user_values'"):
        next(contexts(tmp_path, **restored))


UNTOUCHED = {
    "is_restored": True,
    "states": (StateRef(path=None, index=1, parallelism=2),),
}


def test_a_process_without_rows_before_the_checkpoint_begins_anew(tmp_path: Path) -> None:
    context = next(contexts(tmp_path, **UNTOUCHED))
    counter = Counter()
    context.checkpointed(counter=counter)
    assert (counter.count, context.state) == (0, {})
    require_not_restored(is_restored=context._kept.misses_rows)


def test_training_goes_on_only_with_a_restored_model(
    states: list[tuple[int | None, bytes]], tmp_path: Path
) -> None:
    context = next(contexts(tmp_path, **state_file(tmp_path, states[0][1])))
    with pytest.raises(PlanError, match=r"ctx\.checkpointed\(model="):
        require_not_restored(is_restored=context._kept.misses_rows)
    context.checkpointed(counter=Counter())
    require_not_restored(is_restored=context._kept.misses_rows)
