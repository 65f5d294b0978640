"""What all workers hold alike is kept by the first of them, and restored in all."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import PlanError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed
from headrace.framework.process import StateRef
from headrace.role import RoleContext
from headrace.role.entry import RoleEntry
from headrace.role.state_format import decode_state
from tests.unit.role.doubles import spec_in
from tests.unit.role.test_star import Meeting

SCHEMA = pa.schema([("x", pa.int64())])
ITEMS: Sequence[Item] = (
    Batch(pa.record_batch([[1, 2]], schema=SCHEMA)),
    Barrier(4),
    Batch(pa.record_batch([[3]], schema=SCHEMA)),
    End(),
)


class Quiet(Meeting):
    """Takes reports and forgets them."""

    def report(self, values: Any, rows_in: int, rows_out: int) -> None:
        pass


class Weights:
    """An array as a model has it."""

    def __init__(self, *values: float) -> None:
        self.values = np.array(values)

    def state_dict(self) -> dict[str, Any]:
        return {"values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.values[:] = state["values"]


class Worker:
    """Names one object that all hold alike, and one of its own."""

    def __init__(self, common: float, own: float, *, names: Sequence[str] = ()) -> None:
        self.common = Weights(common, common)
        self.own = Weights(own)
        self.names = names or ("common", "own")
        self.found: tuple[list[float], list[float]] = ([], [])

    def __call__(self, ctx: RoleContext) -> None:
        named = {name: getattr(self, name) for name in self.names}
        ctx.checkpointed(**named)
        ctx._kept.share(self.common)
        self.found = (self.common.values.tolist(), self.own.values.tolist())
        for batch in ctx.batches(rows=10):
            self.own.values += batch["x"].sum()
            self.common.values += 1


def run(
    directory: Path, workers: Sequence[Worker], before: Sequence[bytes] = ()
) -> list[MemoryFeed]:
    """Run workers that meet each other; `before` has the state of each."""
    link = Quiet()
    feeds = [MemoryFeed(ITEMS, input_schema=SCHEMA) for _ in workers]

    def work(index: int) -> None:
        facts: dict[str, Any] = {"index": index, "parallelism": len(workers)}
        if before:
            place = directory / f"state-{index}"
            place.write_bytes(before[index])
            ref = StateRef(path=str(place), index=index, parallelism=len(workers))
            facts |= {"is_restored": True, "states": (ref,)}
        cluster = {"worker": ("127.0.0.1",) * len(workers)}
        spec = spec_in(directory, cluster=cluster, **facts)
        RoleEntry(workers[index])(spec, link, feed=feeds[index])

    with ThreadPoolExecutor(len(workers)) as pool:
        for each in [pool.submit(work, index) for index in range(len(workers))]:
            each.result()
    return feeds


def content_of(state: bytes) -> dict[str, Any]:
    found: dict[str, Any] = decode_state(memoryview(bytearray(state)))
    return found


@pytest.fixture
def states(tmp_path: Path) -> list[bytes]:
    feeds = run(tmp_path, [Worker(10, 0), Worker(10, 100), Worker(10, 200)])
    return [feed.states[0][1] for feed in feeds]


def test_only_the_first_process_keeps_what_all_hold_alike(states: list[bytes]) -> None:
    first, *others = map(content_of, states)
    assert sorted(first["objects"]) == ["common", "own"]
    assert first["objects"]["common"]["values"].tolist() == [11, 11]
    for each in others:
        assert list(each["objects"]) == ["own"]
        assert each["shared"] == ["common"]


def test_all_are_restored_with_what_the_first_has_kept(
    states: list[bytes], tmp_path: Path
) -> None:
    workers = [Worker(-1, -1), Worker(-1, -1), Worker(-1, -1)]
    feeds = run(tmp_path, workers, states)
    assert [each.found for each in workers] == [
        ([11, 11], [3]),
        ([11, 11], [103]),
        ([11, 11], [203]),
    ]
    again = [content_of(feed.states[0][1]) for feed in feeds]
    assert again[0]["objects"]["common"]["values"].tolist() == [12, 12]
    assert [each["objects"]["own"]["values"].tolist() for each in again] == [[6], [106], [206]]


def test_other_names_are_refused_before_the_processes_wait_for_each_other(
    states: list[bytes], tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=r"names 'own', and the restored .* 'common', 'own'"):
        run(tmp_path, [Worker(-1, -1, names=["own"]) for _ in states], states)


def test_what_the_first_process_keeps_is_named_in_another_that_does_not_name_it(
    tmp_path: Path,
) -> None:
    names = ["common"]
    feeds = run(tmp_path, [Worker(10, 0, names=names), Worker(10, 0, names=names)])
    state = feeds[1].states[0][1]
    assert content_of(state)["objects"] == {}
    place = tmp_path / "state"
    place.write_bytes(state)
    ref = StateRef(path=str(place), index=1, parallelism=2)
    spec = spec_in(tmp_path, is_restored=True, states=(ref,))
    feed = MemoryFeed([End()], input_schema=SCHEMA)
    with pytest.raises(PlanError, match=r"holds 'common' of worker-1, .*: name them there"):
        RoleEntry(lambda ctx: list(ctx.batches()))(spec, Quiet(), feed=feed)
