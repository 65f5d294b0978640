"""Held-out rows are kept aside from those to train on, and every process adds up with all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace import testing
from headrace.errors import ConfigError, PlanError, UsageError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed, Watermark
from headrace.framework.process import StateRef
from headrace.role import HELD_OUT, TrainingContext, TrainingSettings
from headrace.role.held_out import HeldOutFeed
from tests.unit.role.doubles import FakeLink, spec_in
from tests.unit.role.test_training import Entry

SCHEMA = pa.schema([("x", pa.int64()), (HELD_OUT, pa.bool_()), ("name", pa.string())])


def batch(*numbers: int, stamped: bool = False) -> Batch:
    """Rows with these numbers; those over 100 are held out."""
    x = np.array(numbers)
    columns = [pa.array(x), pa.array(x > 100), pa.array([f"n{n}" for n in numbers])]
    stamps = pa.array(x * 10) if stamped else None
    return Batch(pa.record_batch(columns, schema=SCHEMA), stamps)


def test_rows_part_and_everything_else_goes_through(tmp_path: Path) -> None:
    items: list[Item] = [
        batch(1, 101, 2, stamped=True),
        Watermark(5),
        batch(102, 103),
        Barrier(7),
        batch(3),
        batch(104),
        End(),
    ]
    feed = HeldOutFeed(MemoryFeed(items, input_schema=SCHEMA), tmp_path / "held")
    assert feed.input_schema == pa.schema([("x", pa.int64()), ("name", pa.string())])
    first = feed.receive(timeout_s=None)
    assert isinstance(first, Batch)
    assert first.columns.to_pydict() == {"x": [1, 2], "name": ["n1", "n2"]}
    assert first.timestamps_ms is not None
    assert first.timestamps_ms.to_pylist() == [10, 20]
    assert feed.receive(timeout_s=None) == Watermark(5)
    assert feed.receive(timeout_s=None) == Barrier(7)
    last = feed.receive(timeout_s=None)
    assert isinstance(last, Batch)
    assert last.columns.to_pydict() == {"x": [3], "name": ["n3"]}
    with pytest.raises(UsageError, match="complete when the first pass over the input has"):
        feed.held_out(2)
    assert feed.receive(timeout_s=None) == End()
    assert feed.receive(timeout_s=None) == End()
    for _ in range(2):  # as often as is wished
        found = [each.to_pydict()["x"] for each in feed.held_out(3)]
        assert found == [[101, 102, 103], [104]]
    feed.close()
    assert list((tmp_path / "held").iterdir()) == []


def test_a_wait_ends_although_held_out_rows_come_all_the_time(tmp_path: Path) -> None:
    def endless() -> Iterator[Batch]:
        while True:
            yield batch(101)

    feed = HeldOutFeed(MemoryFeed(endless(), input_schema=SCHEMA), tmp_path / "held")
    assert feed.receive(timeout_s=0.05) is None
    assert feed.receive(timeout_s=0) is None
    feed.close()


def test_rows_without_the_mark_are_refused(tmp_path: Path) -> None:
    schema = pa.schema([("x", pa.int64())])
    with pytest.raises(ConfigError, match=HELD_OUT):
        HeldOutFeed(MemoryFeed(input_schema=schema), tmp_path / "held")


def test_between_two_passes_a_function_looks_at_its_held_out_rows(tmp_path: Path) -> None:
    seen: list[Any] = []

    def read(ctx: TrainingContext) -> None:
        for batches in ctx.passes(2):
            trained = [each["x"].tolist() for each in batches]
            seen.append((ctx.epoch, trained, [each["x"].tolist() for each in ctx.held_out(2)]))

    items: list[Item] = [batch(1, 2, 101), batch(102, 3, 103), End()]
    link = FakeLink()
    entry = Entry(read, TrainingSettings(epochs=3, has_held_out=True))
    entry(spec_in(tmp_path), link, feed=MemoryFeed(items, input_schema=SCHEMA))
    rows, held = [[1, 2], [3]], [[101, 102], [103]]
    # Between two passes the context is at the next one already; after the last, at that.
    assert seen == [(1, rows, held), (2, rows, held), (2, rows, held)]
    assert link.reports[-1][1] == 6  # rows in: held-out ones too


def test_held_out_rows_of_a_restored_job_are_not_all_of_them(tmp_path: Path) -> None:
    entry = Entry(lambda ctx: ctx.held_out(), TrainingSettings(has_held_out=True))
    feed = MemoryFeed([batch(1, 101), End()], input_schema=SCHEMA)
    with pytest.raises(PlanError, match="restored from a Flink checkpoint or savepoint"):
        entry(spec_in(tmp_path, is_restored=True), FakeLink(), feed=feed)


def test_without_a_held_out_table_there_are_no_such_rows(tmp_path: Path) -> None:
    entry = Entry(lambda ctx: ctx.held_out(), TrainingSettings())
    with pytest.raises(UsageError, match="plan the training with held_out=table"):
        entry(spec_in(tmp_path), FakeLink())


def add(ctx: Any) -> None:
    total = ctx.add_up([0.1 * (ctx.index + 1), 1.0])
    again = ctx.add_up([total[0]])
    ctx.report(total=total[0], count=total[1], again=again[0])


@pytest.mark.timeout(90)  # processes start
@pytest.mark.parametrize("workers", [1, 3])
def test_all_processes_get_the_same_sums(workers: int) -> None:
    result = testing.run(add, framework="pytorch", workers=workers, timeout_s=60.0)
    total = sum(0.1 * (n + 1) for n in range(workers))
    reports = [{k: each[k] for k in ("total", "count", "again")} for each in result.reports]
    assert reports[0] == pytest.approx(
        {"total": total, "count": workers, "again": workers * total}
    )
    assert reports == [reports[0]] * workers


def test_held_out_rows_come_back_behind_a_checkpoint(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    def read(ctx: TrainingContext) -> None:
        ctx.state["batches"] = 0
        for batches in ctx.passes(2):
            for _ in batches:
                ctx.state["batches"] += 1
            seen.append([x for each in ctx.held_out(2) for x in each["x"].tolist()])

    def run(*items: Item, **spec: Any) -> MemoryFeed:
        feed = MemoryFeed(items, input_schema=SCHEMA)
        settings = TrainingSettings(epochs=2, has_held_out=True)
        Entry(read, settings)(spec_in(tmp_path, **spec), FakeLink(), feed=feed)
        return feed

    feed = run(batch(1, 101, 2), Barrier(4), batch(102, 3, 103), Barrier(5), End(), Barrier(6))
    assert seen == [[101, 102, 103]] * 2
    behind: dict[int, list[Item]] = {4: [batch(102, 3, 103), End()], 5: [End()], 6: [End()]}
    for number, state in feed.states:
        if number is None:
            continue
        place = tmp_path / "state"
        place.write_bytes(state)
        ref = StateRef(path=str(place), index=1, parallelism=2)
        seen.clear()
        run(*behind[number], is_restored=True, states=(ref,))
        assert seen
        assert seen == [[101, 102, 103]] * len(seen), number
