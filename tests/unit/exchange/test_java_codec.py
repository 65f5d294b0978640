"""Java and Python read and write the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

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
