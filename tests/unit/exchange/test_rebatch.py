"""Rows grouped anew: order kept, sizes exact, nothing copied without need."""

from __future__ import annotations

import doctest
from collections.abc import Iterator, Sequence

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from headrace.exchange import Rebatcher, rebatch


def rows(start: int, count: int) -> pa.RecordBatch:
    return pa.record_batch(
        {
            "x": pa.array(range(start, start + count), pa.int32()),
            "s": [None if x % 3 == 0 else str(x) for x in range(start, start + count)],
            "l": [[x] * (x % 4) for x in range(start, start + count)],
        },
        schema=pa.schema([("x", pa.int32()), ("s", pa.utf8()), ("l", pa.list_(pa.int64()))]),
    )


def taken(rebatcher: Rebatcher, sizes: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Push batches of these sizes; yield what is full after each."""
    start = 0
    for size in sizes:
        rebatcher.push(rows(start, size))
        start += size
        while (batch := rebatcher.take()) is not None:
            yield batch


def require_all(rebatcher: Rebatcher, got: Sequence[pa.RecordBatch], count: int) -> None:
    """With what the rebatcher still holds, the batches are all rows in order."""
    rest = rebatcher.flush()
    table = pa.Table.from_batches([*got, *([rest] if rest else [])], schema=rows(0, 0).schema)
    assert table.equals(pa.Table.from_batches([rows(0, count)]))


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(1, 50))
def test_every_row_comes_once_in_order_and_all_but_the_last_are_exact(
    sizes: list[int], wanted: int
) -> None:
    rebatcher = Rebatcher(wanted)
    got = [*taken(rebatcher, sizes)]
    assert rebatcher.held_rows < wanted
    assert all(batch.num_rows == wanted for batch in got)
    require_all(rebatcher, got, sum(sizes))
    assert rebatcher.flush() is None


@given(st.lists(st.integers(1, 9), max_size=10))
def test_the_size_may_change_between_two_batches(sizes: list[int]) -> None:
    rebatcher = Rebatcher(1)
    rebatcher.push(rows(0, 60))
    rebatcher.push(rows(60, 60))
    start = 0
    for size in sizes:
        rebatcher.rows = size
        batch = rebatcher.take()
        assert batch is not None
        assert batch.equals(rows(start, size))
        start += size


@given(
    st.lists(st.integers(0, 40), max_size=12),
    st.integers(1, 9),
    st.integers(1, 5),
    st.lists(st.integers(0, 4), max_size=40),
)
def test_several_batches_together_are_whole_ones_and_what_is_put_back_comes_again(
    sizes: list[int], wanted: int, at_once: int, put_back: list[int]
) -> None:
    rebatcher = Rebatcher(wanted)
    rebatcher.at_once = at_once
    got: list[pa.RecordBatch] = []
    for batch in taken(rebatcher, sizes):
        batches, beyond = divmod(batch.num_rows, wanted)
        assert beyond == 0
        assert 1 <= batches <= at_once
        kept = max(0, batch.num_rows - wanted * (put_back.pop() if put_back else 0))
        rebatcher.put_back(batch.slice(kept))
        got.append(batch.slice(0, kept))
    require_all(rebatcher, got, sum(sizes))


def test_rows_inside_one_batch_are_not_copied() -> None:
    whole = rows(0, 10)
    rebatcher = Rebatcher(4)
    rebatcher.push(whole)
    for start in (0, 4):
        batch = rebatcher.take()
        assert batch is not None
        assert batch.column(0).buffers()[1].address == whole.column(0).buffers()[1].address
        assert batch.column(0).offset == start


def test_the_example_of_the_docstring_works() -> None:
    assert doctest.testmod(rebatch).failed == 0
