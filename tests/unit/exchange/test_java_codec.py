"""Java and Python read and write the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.exchange import every_type, java

GOLDEN = Path(__file__).resolve().parents[2] / "golden"
MARGIN_BYTES = 1 << 16

pytestmark = pytest.mark.timeout(200)  # the first test compiles


@pytest.fixture(scope="module")
def codec(
    java_classes: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[java.JavaCodec]:
    codec = java.JavaCodec(java_classes, tmp_path_factory.mktemp("messages"))
    yield codec
    codec.close()


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def decode(message: bytes, schema: pa.Schema) -> pa.RecordBatch:
    batch = pa.ipc.read_record_batch(pa.py_buffer(message), schema)
    batch.validate(full=True)
    return batch


def test_java_declares_the_schema_of_the_golden_file(codec: java.JavaCodec) -> None:
    assert codec.schema(every_type.ROW_TYPE) == golden("every_type.schema")


def test_python_reads_the_golden_schema() -> None:
    schema = pa.ipc.read_schema(pa.py_buffer(golden("every_type.schema")))
    assert schema.equals(every_type.SCHEMA, check_metadata=True)


def test_python_reads_the_golden_batch_of_java() -> None:
    assert decode(golden("every_type.java"), every_type.SCHEMA).equals(every_type.batch())


def test_java_writes_the_golden_batch(codec: java.JavaCodec) -> None:
    message = every_type.batch().serialize().to_pybytes()
    written = codec.round_trip(
        every_type.ROW_TYPE, message, batch_rows=16, slot_bytes=MARGIN_BYTES
    )
    assert written == [golden("every_type.java")]


def test_java_reads_the_same_in_the_golden_batches_of_both_languages(
    codec: java.JavaCodec,
) -> None:
    from_java = codec.rows(every_type.ROW_TYPE, golden("every_type.java"))
    assert from_java == codec.rows(every_type.ROW_TYPE, golden("every_type.python"))
    assert from_java == (GOLDEN / "every_type.txt").read_text(encoding="utf-8")


def test_python_reads_its_own_golden_batch() -> None:
    assert decode(golden("every_type.python"), every_type.SCHEMA).equals(every_type.batch())


def test_every_buffer_that_java_writes_is_aligned_to_64_bytes() -> None:
    message = pa.py_buffer(golden("every_type.java"))
    batch = pa.ipc.read_record_batch(message, every_type.SCHEMA)
    buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer]
    assert len(buffers) > len(batch.columns)
    for buffer in buffers:
        assert (buffer.address - message.address) % 64 == 0


@pytest.mark.parametrize("slot_bytes", [65536, 16384, 8192, 4096])
@pytest.mark.parametrize("batch_rows", [1, 7, 4096])
def test_rows_survive_however_they_are_cut_into_messages(
    codec: java.JavaCodec, batch_rows: int, slot_bytes: int
) -> None:
    rows = every_type.ROWS * 30
    batch = pa.RecordBatch.from_pylist(rows, schema=every_type.SCHEMA)
    messages = codec.round_trip(
        every_type.ROW_TYPE,
        batch.serialize().to_pybytes(),
        batch_rows=batch_rows,
        slot_bytes=slot_bytes,
    )
    assert len(messages) >= len(rows) / batch_rows
    pieces = [decode(message, every_type.SCHEMA) for message in messages]
    assert pa.Table.from_batches(pieces).combine_chunks().to_batches() == [batch]


@st.composite
def mixed_rows(draw: st.DrawFn) -> list[dict[str, object]]:
    """Rows whose columns are full, NULL or empty independently of each other."""
    kinds = [*every_type.ROWS[:3]]
    seed = draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    picks = generator.choice(3, size=(draw(st.integers(1, 80)), len(kinds[0])))
    return [
        {name: kinds[pick][name] for name, pick in zip(kinds[0], row, strict=True)}
        for row in picks
    ]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=mixed_rows(),
    batch_rows=st.integers(1, 100),
    slot_bytes=st.sampled_from([4096, 12_288, 65_536, 1 << 20]),
)
def test_any_mix_of_nulls_survives(
    codec: java.JavaCodec, rows: list[dict[str, object]], batch_rows: int, slot_bytes: int
) -> None:
    batch = pa.RecordBatch.from_pylist(rows, schema=every_type.SCHEMA)
    messages = codec.round_trip(
        every_type.ROW_TYPE,
        batch.serialize().to_pybytes(),
        batch_rows=batch_rows,
        slot_bytes=slot_bytes,
    )
    pieces = [decode(message, every_type.SCHEMA) for message in messages]
    assert pa.Table.from_batches(pieces).combine_chunks().to_batches() == [batch]


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=mixed_rows())
def test_a_row_between_tasks_has_the_bytes_that_flink_gives_it(
    codec: java.JavaCodec, rows: list[dict[str, object]]
) -> None:
    message = pa.RecordBatch.from_pylist(rows, schema=every_type.SCHEMA).serialize()
    pairs = codec.pack(every_type.ROW_TYPE, message.to_pybytes())
    assert len(pairs) == len(rows)
    for ours, flinks in pairs:
        assert ours == flinks


def test_a_row_of_hundreds_of_fields_has_the_bytes_that_flink_gives_it(
    codec: java.JavaCodec,
) -> None:
    names = [f"c{i}" for i in range(300)]
    rows = [{name: float(row * i) for i, name in enumerate(names)} for row in range(3)]
    schema = pa.schema([*((name, pa.float32()) for name in names), every_type.SCHEMA[-1]])
    message = pa.RecordBatch.from_pylist(rows, schema=schema).serialize().to_pybytes()
    row_type = f"ROW<{', '.join(f'{name} FLOAT' for name in names)}>"
    ours, flinks = zip(*codec.pack(row_type, message), strict=True)
    assert ours == flinks
    assert len(set(ours)) == len(rows)


def test_floats_keep_every_bit(codec: java.JavaCodec) -> None:
    singles = np.array(
        [0x7FC00001, 0xFFC00000, 0x7F800001, 0x7F800000, 0x80000000, 0x00000001], np.uint32
    )
    doubles = singles.astype(np.uint64) << np.uint64(32) | np.uint64(1)
    lists = pa.ListArray.from_arrays(range(7), pa.array(singles.view(np.float32)))
    stamps = pa.nulls(6, pa.int64())
    batch = pa.record_batch(
        [pa.array(singles.view(np.float32)), pa.array(doubles.view(np.float64)), lists, stamps],
        names=["f", "d", "l", "__timestamp__"],
    )
    (message,) = codec.round_trip(
        "ROW<f FLOAT, d DOUBLE, l ARRAY<FLOAT>>",
        batch.serialize().to_pybytes(),
        batch_rows=16,
        slot_bytes=MARGIN_BYTES,
    )
    read = decode(message, batch.schema)
    assert read.column(0).to_numpy().view(np.uint32).tolist() == singles.tolist()
    assert read.column(1).to_numpy().view(np.uint64).tolist() == doubles.tolist()
    assert read.column(2).flatten().to_numpy().view(np.uint32).tolist() == singles.tolist()


def test_java_reads_what_pyarrow_makes_of_a_slice(codec: java.JavaCodec) -> None:
    batch = pa.RecordBatch.from_pylist(every_type.ROWS * 3, schema=every_type.SCHEMA)
    whole = codec.rows(every_type.ROW_TYPE, batch.serialize().to_pybytes()).split(";")
    for start, rows in [(1, 3), (3, 11), (9, 18), (26, 1)]:
        piece = batch.slice(start, rows).serialize().to_pybytes()
        found = codec.rows(every_type.ROW_TYPE, piece).split(";")
        assert found[:-1] == whole[start : start + rows]
