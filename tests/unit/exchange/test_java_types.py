"""Java's codec with tables of any types, nested ones too, against pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.exchange import TIMESTAMP_FIELD
from tests.sql_types import KINDS, Kind, array, map_of, multiset, plain, row, tables
from tests.unit.exchange import java

pytestmark = pytest.mark.timeout(200)  # the first test compiles


@pytest.fixture(scope="module")
def codec(
    java_classes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[java.JavaCodec]:
    codec = java.JavaCodec(java_classes, tmp_path_factory.mktemp("messages"))
    yield codec
    codec.close()


# A NaN is a bad key, and Flink's maps take NULL for no key at all.
_KEYS = st.sampled_from([KINDS[name] for name in ("int8", "text", "decimal38", "ts9", "date")])


def _nested(inner: st.SearchStrategy[Kind]) -> st.SearchStrategy[Kind]:
    return (
        st.builds(array, inner)
        | st.builds(map_of, _KEYS, inner)
        | st.builds(multiset, _KEYS)
        | st.dictionaries(
            st.sampled_from(["a", "b c", "d.e", "ф"]), inner, min_size=1, max_size=3
        ).map(lambda fields: row(**fields))
    )


_ANY = st.recursive(st.sampled_from(list(KINDS.values())), _nested, max_leaves=6)


@st.composite
def any_tables(draw: st.DrawFn) -> tuple[str, pa.Table]:
    """A row type in SQL and a table of it, with Flink's timestamps as its last column."""
    names = st.sampled_from(["a", "B", "a b", "a.b", "größe", "select", "漢字", "0"])
    kinds = draw(st.dictionaries(names, _ANY, min_size=1, max_size=4))
    table = draw(tables(kinds, 30))
    stamps = draw(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=5))
    cycled = [*stamps, None] * table.num_rows
    column = pa.array(cycled[: table.num_rows], pa.int64())
    columns = ", ".join(f"`{name}` {kind.sql}" for name, kind in kinds.items())
    return f"ROW<{columns}>", table.append_column(TIMESTAMP_FIELD, column)


@settings(max_examples=60)
@given(
    typed=any_tables(),
    start=st.integers(0, 10),
    batch_rows=st.integers(1, 40),
    slot_bytes=st.sampled_from([4096, 16_384, 1 << 20]),
)
def test_rows_of_any_types_survive(
    codec: java.JavaCodec,
    typed: tuple[str, pa.Table],
    start: int,
    batch_rows: int,
    slot_bytes: int,
) -> None:
    row_type, table = typed
    given_rows = table.combine_chunks().to_batches()[0].slice(start)
    assert pa.ipc.read_schema(pa.py_buffer(codec.schema(row_type))) == table.schema
    messages = codec.round_trip(
        row_type,
        given_rows.serialize().to_pybytes(),
        batch_rows=batch_rows,
        slot_bytes=slot_bytes,
    )
    pieces = [pa.ipc.read_record_batch(pa.py_buffer(m), table.schema) for m in messages]
    for piece in pieces:
        piece.validate(full=True)
    got = pa.Table.from_batches(pieces)
    assert columns(got) == columns(given_rows)


def columns(rows: pa.Table | pa.RecordBatch) -> list[list[Any]]:
    return [plain(column) for column in rows.columns]
