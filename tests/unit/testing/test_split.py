from __future__ import annotations

import pyarrow as pa
import pytest

from headrace.errors import ConfigError
from headrace.testing.split import split_table

TABLE = pa.table({"n": list(range(10))})


def numbers(parts: list[pa.Table]) -> list[list[int]]:
    return [part["n"].to_pylist() for part in parts]


def test_batches_are_dealt_in_turn() -> None:
    parts = split_table(TABLE, 2, split=None, batch_rows=3)
    assert numbers(parts) == [[0, 1, 2, 6, 7, 8], [3, 4, 5, 9]]


def test_more_workers_than_batches_leaves_some_without_rows() -> None:
    assert numbers(split_table(TABLE, 3, split=None, batch_rows=8)) == [
        list(range(8)),
        [8, 9],
        [],
    ]


def test_fractions_cut_consecutive_parts() -> None:
    parts = split_table(TABLE, 3, split=[0.5, 0.0, 0.5], batch_rows=3)
    assert numbers(parts) == [[0, 1, 2, 3, 4], [], [5, 6, 7, 8, 9]]


def test_tables_are_taken_as_they_are() -> None:
    parts = split_table(TABLE, 2, split=[TABLE.slice(7), TABLE.slice(0, 0)], batch_rows=3)
    assert numbers(parts) == [[7, 8, 9], []]


@pytest.mark.parametrize(
    "split", [[1.0], [0.5, 0.6], [-0.5, 1.5], [TABLE, pa.table({"m": [1]})]]
)
def test_parts_that_do_not_fit_are_refused(split: list[float]) -> None:
    with pytest.raises(ConfigError, match="split"):
        split_table(TABLE, 2, split=split, batch_rows=3)
