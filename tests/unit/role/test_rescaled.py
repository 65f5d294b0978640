"""Processes that are restored from the checkpoint of another number of them."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import PlanError, UsageError
from headrace.exchange import Barrier, Batch, End, MemoryFeed
from headrace.framework.process import StateRef
from headrace.role import RoleContext
from headrace.role.entry import RoleEntry
from headrace.role.restored import require_not_restored
from tests.unit.role.doubles import spec_in
from tests.unit.role.test_shared_state import SCHEMA, Quiet, Weights, content_of

CHANGES = [(2, 3), (3, 1), (1, 2), (3, 2), (2, 5)]
Entry = Callable[[RoleContext], object]


def split(parts: Sequence[StateRef], processes: int) -> list[list[StateRef]]:
    """Give parts to processes as Flink's RoundRobinOperatorStateRepartitioner does."""
    base, more = divmod(len(parts), processes)
    counts = [base + (index < more) for index in range(processes)]
    starts = [sum(counts[:index]) for index in range(processes)]
    return [list(parts[at : at + count]) for at, count in zip(starts, counts, strict=True)]


def run(
    directory: Path,
    entry: Entry,
    processes: int,
    before: Sequence[bytes | None] = (),
    *,
    has_master: bool = True,
    idle: frozenset[int] = frozenset(),
) -> list[bytes]:
    """Run processes; `before` has the states of the former ones. Return their states.

    Those in `idle` get no row.
    """
    refs = []
    for index, state in enumerate(before):
        place = directory / f"state-{index}"
        place.write_bytes(state or b"")
        path = None if state is None else str(place)
        refs.append(StateRef(path=path, index=index, parallelism=len(before)))
    given = split(refs, processes)
    link = Quiet()
    without = (Barrier(4), End())
    items = (Batch(pa.record_batch([[1, 2]], schema=SCHEMA)), *without)
    feeds = [
        MemoryFeed(without if index in idle else items, input_schema=SCHEMA)
        for index in range(processes)
    ]

    def work(index: int) -> None:
        facts: dict[str, Any] = {"index": index, "parallelism": processes}
        if before:
            facts |= {
                "is_restored": True,
                "restored_parallelism": len(before),
                "states": tuple(given[index]),
            }
        if has_master:
            facts["cluster"] = {"worker": ("127.0.0.1",) * processes}
        own = directory / f"work-{index}"
        own.mkdir(exist_ok=True)
        RoleEntry(entry)(spec_in(own, **facts), link, feed=feeds[index])

    with ThreadPoolExecutor(processes) as pool:
        for each in [pool.submit(work, index) for index in range(processes)]:
            each.result()
    return [feed.states[0][1] for feed in feeds if feed.states]


def merge(former: list[dict[str, Any]]) -> dict[str, Any]:
    return {"rows": sum(each.get("rows", 0) for each in former)}


def count(ctx: RoleContext) -> None:
    """Count rows in `ctx.state`, and batches in an object that all hold alike."""
    ctx.merge_state(merge)
    common = Weights(10, 10)
    ctx.checkpointed(common=common)
    ctx._kept.share(common)
    for batch in ctx.batches(rows=10):
        ctx.state["rows"] = ctx.state.get("rows", 0) + len(batch["x"])
        common.values += 1


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_every_process_has_the_common_part_and_each_value_is_in_one_of_them(
    tmp_path: Path, before: int, after: int
) -> None:
    states = run(tmp_path, count, before)
    assert len(states) == before
    again = [content_of(each) for each in run(tmp_path, count, after, states)]
    assert sum(each["values"]["rows"] for each in again) == 2 * before + 2 * after
    assert again[0]["objects"]["common"]["values"].tolist() == [12, 12]
    for each in again[1:]:
        assert (each["shared"], each["objects"]) == (["common"], {})


def test_the_common_part_comes_to_processes_that_are_new(tmp_path: Path) -> None:
    found = {}

    def entry(ctx: RoleContext) -> None:
        ctx.merge_state(merge)
        common = Weights(-1, -1)
        ctx.checkpointed(common=common)
        found[ctx.index] = (common.values.tolist(), ctx.state["rows"])
        require_not_restored(is_restored=ctx._kept.misses_rows)

    run(tmp_path, entry, 3, run(tmp_path, count, 2))
    assert found == {0: ([11, 11], 2), 1: ([11, 11], 2), 2: ([11, 11], 0)}


@pytest.mark.parametrize("use", [lambda ctx: ctx.state, lambda ctx: ctx.batches()])
def test_values_are_not_used_before_somebody_has_said_what_becomes_of_them(
    tmp_path: Path, use: Callable[[RoleContext], object]
) -> None:
    def entry(ctx: RoleContext) -> None:
        ctx.checkpointed(common=Weights(0, 0))
        use(ctx)

    states = run(tmp_path, count, 2)
    with pytest.raises(PlanError, match=r"of 2 processes .*'worker' \(with 'rows'\).* runs 1"):
        run(tmp_path, entry, 1, states)


def test_a_process_without_a_row_brings_an_empty_state_to_merge(tmp_path: Path) -> None:
    given: list[dict[str, Any]] = []

    def note(former: list[dict[str, Any]]) -> dict[str, Any]:
        given.extend(former)
        return merge(former)

    def entry(ctx: RoleContext) -> None:
        ctx.merge_state(note)
        ctx.checkpointed(common=Weights(0, 0))
        assert ctx.state == {"rows": 2}

    run(tmp_path, entry, 1, run(tmp_path, count, 2, idle=frozenset({1})))
    assert given == [{"rows": 2}, {}]


@pytest.mark.parametrize("merged", [None, [("rows", 4)]])
def test_what_is_merged_must_be_a_mapping(tmp_path: Path, merged: Any) -> None:
    def entry(ctx: RoleContext) -> None:
        ctx.merge_state(lambda _: merged)

    states = run(tmp_path, count, 2)
    returned = type(merged).__name__
    with pytest.raises(UsageError, match=rf"ctx\.merge_state returned {returned}: .* mapping"):
        run(tmp_path, entry, 1, states)


def test_the_same_number_of_processes_merges_nothing(tmp_path: Path) -> None:
    states = run(tmp_path, count, 2)

    def entry(ctx: RoleContext) -> None:
        ctx.merge_state(lambda _: pytest.fail("merged"))
        assert ctx.state == {"rows": 2}
        ctx.checkpointed(common=Weights(0, 0))
        assert next(iter(ctx.batches()))
        with pytest.raises(UsageError, match=r"ctx\.merge_state must be called before"):
            ctx.merge_state(merge)

    run(tmp_path, entry, 2, states)


def test_an_object_of_each_process_alone_is_refused_by_its_name(tmp_path: Path) -> None:
    def entry(ctx: RoleContext) -> None:
        ctx.checkpointed(own=Weights(1), alike=Weights(2))
        list(ctx.batches())

    states = run(tmp_path, entry, 2)
    with pytest.raises(PlanError, match=r"holds 'alike', 'own' of each of 2 .* the job runs 1"):
        run(tmp_path, entry, 1, states)


def test_processes_that_do_not_know_each_other_merge_values_all_the_same(
    tmp_path: Path,
) -> None:
    def entry(ctx: RoleContext) -> None:
        ctx.merge_state(merge)
        for batch in ctx.batches(rows=10):
            ctx.state["rows"] = ctx.state.get("rows", 0) + len(batch["x"])

    states = run(tmp_path, entry, 2, has_master=False)
    again = run(tmp_path, entry, 3, states, has_master=False)
    assert sum(content_of(each)["values"]["rows"] for each in again) == 2 * 2 + 3 * 2


def test_all_begin_anew_if_there_was_no_row(tmp_path: Path) -> None:
    def entry(ctx: RoleContext) -> None:
        common = Weights(5, 5)
        ctx.checkpointed(common=common)
        assert common.values.tolist() == [5, 5]
        require_not_restored(is_restored=ctx._kept.misses_rows)

    run(tmp_path, entry, 2, [None])


def test_generators_go_on_in_the_process_that_got_the_state(tmp_path: Path) -> None:
    drawn: list[float] = []

    def entry(ctx: RoleContext) -> None:
        random.seed(7)
        common = Weights(0, 0)
        ctx.checkpointed(common=common)
        ctx._kept.share(common)
        drawn.extend(random.random() for _ in ctx.batches(rows=10))
        drawn.append(random.random())

    states = run(tmp_path, entry, 1)
    again = content_of(states[0])["generators"]
    assert again
    run(tmp_path, lambda ctx: _named(ctx, drawn), 1, [states[0], states[0]])
    assert drawn[-1] == drawn[1], "what came behind the checkpoint"


def _named(ctx: RoleContext, drawn: list[float]) -> None:
    ctx.checkpointed(common=Weights(0, 0))
    drawn.append(random.random())


@pytest.mark.parametrize(("before", "after"), CHANGES)
def test_objects_that_nobody_names_again_are_refused(
    tmp_path: Path, before: int, after: int
) -> None:
    def forget(ctx: RoleContext) -> None:
        ctx.merge_state(merge)
        list(ctx.batches(rows=10))

    states = run(tmp_path, count, before)
    with pytest.raises(PlanError, match=r"holds 'common' of worker-\d.*checkpointed was not"):
        run(tmp_path, forget, after, states)


@pytest.mark.parametrize("after", [1, 2, 3])
def test_no_restored_file_is_mapped_once_the_input_is_read(tmp_path: Path, after: int) -> None:
    mapped: list[tuple[int, int]] = []

    def maps() -> int:
        gc.collect()
        found = Path("/proc/self/maps").read_text().splitlines()
        return sum(f"{tmp_path}/state-" in line for line in found)

    def entry(ctx: RoleContext) -> None:
        ctx.merge_state(merge)
        common = Weights(-1, -1)
        ctx.checkpointed(common=common)
        before = maps()
        everyone.wait()
        rows = ctx.batches(rows=10)
        everyone.wait()
        mapped.append((before, maps()))
        everyone.wait()
        list(rows)
        assert common.values.tolist() == [11, 11]

    states = run(tmp_path, count, 2)
    everyone = threading.Barrier(after, timeout=20)
    run(tmp_path, entry, after, states)
    assert [behind for _, behind in mapped] == [0] * after
    assert after == 2 or min(before for before, _ in mapped) > 0, "found while they are mapped"


def test_rows_of_several_passes_are_refused(tmp_path: Path) -> None:
    def entry(ctx: RoleContext) -> None:
        ctx.state["rows"] = 0
        list(ctx.batches(rows=10, epochs=2))

    states = run(tmp_path, entry, 2)
    with pytest.raises(PlanError, match=r"holds rows of each of 2 processes .* job runs 1"):
        run(tmp_path, entry, 1, states)


def stepping(pending_rows: int, *, has_gradients: bool = True) -> Entry:
    def entry(ctx: RoleContext) -> None:
        common = Weights(0, 0)
        ctx.checkpointed(common=common)
        ctx._kept.share(common)
        own: dict[str, Any] = {"pending_rows": pending_rows}
        if has_gradients:
            own["gradients"] = [ctx.index]
        ctx._kept.keep_part("steps", lambda: ({"steps": 9}, own))
        list(ctx.batches())

    return entry


def test_a_step_that_was_not_made_yet_goes_on_in_one_process(tmp_path: Path) -> None:
    parts = {}

    def entry(ctx: RoleContext) -> None:
        ctx.checkpointed(common=Weights(0, 0))
        parts[ctx.index] = ctx._kept.restored_part("steps", None)

    run(tmp_path, entry, 3, run(tmp_path, stepping(4), 2))
    assert parts == {
        0: ({"steps": 9}, {"pending_rows": 4, "gradients": [0]}),
        1: ({"steps": 9}, {"pending_rows": 4, "gradients": [1]}),
        2: ({"steps": 9}, {}),
    }
    run(tmp_path, entry, 1, run(tmp_path, stepping(0), 2))
    assert parts[0] == ({"steps": 9}, {})
    none, four = (run(tmp_path, stepping(rows), 2) for rows in (0, 4))
    run(tmp_path, entry, 1, [none[0], four[1]])
    assert parts[0] == ({"steps": 9}, {"pending_rows": 4, "gradients": [1]})
    skipped = run(tmp_path, stepping(4, has_gradients=False), 2)
    run(tmp_path, entry, 1, skipped)
    assert parts[0] == ({"steps": 9}, {"pending_rows": 8})
    states = run(tmp_path, stepping(4), 2)
    with pytest.raises(PlanError, match=r"holds 8 rows of several .* runs 1 in place of 2"):
        run(tmp_path, entry, 1, states)
