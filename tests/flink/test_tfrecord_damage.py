"""TFRecord files that are damaged, and features that are not what was declared.

One case of each kind is read by a job of its own, the others by the reader that Flink's file
source makes of the format.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyflink.table import DataTypes, StreamTableEnvironment

from headrace.tensorflow import tfrecord

from .conftest import MakeEnvironment
from .records import entry, example, field, frame, masked_crc, varint
from .tables import failure_of, rows_of, values
from .tfrecord_reader import failure_of_reader, failure_without_file

X = {"x": DataTypes.BIGINT()}


def number(value: int) -> bytes:
    """An example whose feature `x` is this number."""
    return example(entry("x", field(3, field(1, varint(value)))))


RECORDS = [frame(number(i)) for i in range(3)]
SECOND, THIRD = len(RECORDS[0]), len(RECORDS[0]) + len(RECORDS[1])
WHOLE = b"".join(RECORDS)


def flipped(at: int) -> bytes:
    """The file with one bit of the byte `at` turned round."""
    return WHOLE[:at] + bytes([WHOLE[at] ^ 0x10]) + WHOLE[at + 1 :]


@pytest.mark.parametrize(
    ("content", "offset", "words"),
    [
        pytest.param(flipped(SECOND), SECOND, "its length 30 has", id="length"),
        pytest.param(
            flipped(SECOND + 7), SECOND, "its length 1152921504606846990 has", id="high"
        ),
        pytest.param(flipped(SECOND + 9), SECOND, "its length 14 has", id="checksum of length"),
        pytest.param(flipped(SECOND + 14), SECOND, "its data of 14 bytes has", id="data"),
        pytest.param(flipped(THIRD - 1), SECOND, "its data of 14 bytes", id="checksum of data"),
        pytest.param(flipped(0), 0, "its length 30 has", id="first length"),
        pytest.param(WHOLE[: SECOND + 1], SECOND, "ends after 1", id="cut in the length"),
        pytest.param(WHOLE[: SECOND + 10], SECOND, "ends after 10", id="cut in its checksum"),
        pytest.param(WHOLE[: SECOND + 12], SECOND, "ends after 12", id="cut before the data"),
        pytest.param(WHOLE[: SECOND + 20], SECOND, "ends after 20", id="cut in the data"),
        pytest.param(WHOLE[:-1], THIRD, "ends after 29", id="cut in the last checksum"),
        pytest.param(WHOLE + b"\n", THIRD + 30, "ends after 1", id="a byte more"),
        pytest.param(b"id,x\n1,2\n3,4\n", 0, "its length", id="a CSV file"),
        pytest.param(b"x", 0, "ends after 1", id="a single byte"),
    ],
)
def test_a_damaged_file_is_named_with_the_byte_where_the_record_begins(
    classes: Any, tmp_path: Path, content: bytes, offset: int, words: str
) -> None:
    assert len(RECORDS[0]) == 30
    (tmp_path / "damaged").write_bytes(content)
    cause = failure_of_reader(classes, tmp_path / "damaged", X)
    assert f"TFRecord file file:{tmp_path}/damaged, record at byte {offset}: " in cause
    assert words in cause
    assert "Write it again from its source, or move it out of the directory" in cause


def test_a_wrong_checksum_is_shown_beside_the_right_one(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    (tmp_path / "damaged").write_bytes(flipped(THIRD + 15))
    cause = failure_of(tfrecord.read(t_env, tmp_path, X))
    actual = masked_crc(flipped(THIRD + 15)[THIRD + 12 : -4])
    (expected,) = struct.unpack("<I", WHOLE[-4:])
    assert f"CRC-32C 0x{actual:08x}, but the file says 0x{expected:08x}" in cause


@pytest.mark.parametrize(
    ("pack", "name"), [(gzip.compress, "GZIP"), (zlib.compress, "ZLIB")], ids=["GZIP", "ZLIB"]
)
def test_damage_in_a_compressed_file_is_told_by_the_byte_of_its_content(
    t_env: StreamTableEnvironment,
    tmp_path: Path,
    pack: Callable[[bytes], bytes],
    name: str,
) -> None:
    (tmp_path / "bits").write_bytes(pack(flipped(SECOND + 14)))
    cause = failure_of(tfrecord.read(t_env, tmp_path / "bits", X))
    assert f"/bits, record at byte {SECOND} of its content ({name}): its data of 14" in cause
    (tmp_path / "cut").write_bytes(pack(WHOLE)[:-12])
    cause = failure_of(tfrecord.read(t_env, tmp_path / "cut", X))
    assert f"of its content ({name}): decompressing failed ({name}: " in cause
    assert "null" not in cause.partition("decompressing failed")[2].partition(")")[0]


def test_compressed_files_that_were_joined_are_read_or_refused(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    """Parts of gzip files are a gzip file; zlib has no such rule, so nothing is passed over."""
    (tmp_path / "gzip").write_bytes(gzip.compress(WHOLE) + gzip.compress(RECORDS[2]))
    (tmp_path / "zlib").write_bytes(zlib.compress(WHOLE) + zlib.compress(RECORDS[2]))
    assert rows_of(tfrecord.read(t_env, tmp_path / "gzip", X)) == [(0,), (1,), (2,), (2,)]
    cause = failure_of(tfrecord.read(t_env, tmp_path / "zlib", X))
    assert "bytes follow the end of the zlib stream" in cause


@pytest.mark.parametrize(
    "damage",
    [
        lambda member: member[:5],
        lambda member: member[:-20],
        lambda member: b"\x1f\x8b\x07" + member[3:],
        lambda member: b"\x00" + member,
    ],
    ids=["cut in the header", "cut in the data", "wrong header", "a byte before it"],
)
def test_damage_in_a_further_member_of_a_gzip_file_is_no_end(
    classes: Any, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    (tmp_path / "joined").write_bytes(gzip.compress(WHOLE) + damage(gzip.compress(WHOLE)))
    cause = failure_of_reader(classes, tmp_path / "joined", X)
    assert "of its content (GZIP): decompressing failed" in cause


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zlib.compress])
def test_a_file_that_cannot_be_read_for_the_moment_is_not_called_damaged(
    classes: Any, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    """The exception is that of the file system, so that Flink may try again."""
    content = b"".join(
        frame(number((i + 1) * 0x9E3779B97F4A7C15 % 2**60)) for i in range(20_000)
    )
    (tmp_path / "a").write_bytes(pack(content))
    failure = failure_without_file(classes, tmp_path / "a", X)
    assert failure.getClass().getName() in {
        "java.io.IOException",
        "java.nio.channels.ClosedChannelException",
    }


def test_a_length_beyond_the_file_takes_no_memory(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    """The heap of the tests' JVM has no room for it: the job would fail for that."""
    (tmp_path / "plain").write_bytes(frame(b"short", length=2**31 - 100))
    (tmp_path / "packed").write_bytes(gzip.compress(frame(b"short", length=2**31 - 100)))
    (tmp_path / "huge").write_bytes(frame(b"short", length=2**63 + 5))
    for name, words in (
        ("plain", "it takes 2147483564 bytes, but the file ends after 21"),
        ("packed", "it takes 2147483564 bytes, but the file ends after 21"),
        ("huge", "the record has 9223372036854775813 bytes; the most that can be read is"),
    ):
        assert words in failure_of(tfrecord.read(t_env, tmp_path / name, X))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"no protobuf at all", "the wire type"),
        (field(1, b"\x0a\xff"), "ends inside a varint"),
        (b"\x0a\x7f", "a field of 127 bytes has only 0"),
        (b"\xff" * 11, "more than ten bytes"),
        (b"\x00\x01", "no field can have the tag 0"),
        (example(entry("x", varint(3 << 3) + varint(1))), "an int64_list has the wire type 0"),
        (example(entry("x", field(2, field(1, b"123")))), "ends inside a float"),
    ],
    ids=["text", "varint", "length", "endless", "tag", "feature", "float"],
)
def test_a_record_that_is_no_example_is_named(
    classes: Any, tmp_path: Path, data: bytes, words: str
) -> None:
    (tmp_path / "a").write_bytes(RECORDS[0] + frame(data))
    cause = failure_of_reader(classes, tmp_path / "a", X)
    assert f"/a, record at byte {SECOND}: the record is intact, but is no tf.Example: " in cause
    assert words in cause


def test_a_job_fails_with_what_is_no_example(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    (tmp_path / "a").write_bytes(RECORDS[0] + frame(b"no protobuf at all"))
    cause = failure_of(tfrecord.read(t_env, tmp_path, X))
    assert f"/a, record at byte {SECOND}: the record is intact, but is no tf.Example: " in cause


INTEGERS, FLOATS, BYTES = 3, 2, 1


def feature(kind: int, *content: bytes) -> bytes:
    return field(kind, *(field(1, each) for each in content))


MISFITS = {
    "a float for BIGINT": (
        DataTypes.BIGINT(),
        feature(FLOATS, b"\0\0\0\0"),
        "is a float_list of 1, but the column is declared BIGINT, which takes an int64_list of",
    ),
    "an integer for FLOAT": (
        DataTypes.FLOAT(),
        feature(INTEGERS, varint(1)),
        "is an int64_list of 1, but the column is declared FLOAT, which takes a float_list",
    ),
    "three floats for FLOAT": (
        DataTypes.FLOAT(),
        feature(FLOATS, b"\0\0\0\0" * 3),
        "declared FLOAT, which takes a float_list of 1. Declare ARRAY<FLOAT>.",
    ),
    "integers for texts": (
        DataTypes.ARRAY(DataTypes.STRING()),
        feature(INTEGERS, varint(1), varint(2)),
        "declared ARRAY<STRING>, which takes a bytes_list. Declare ARRAY<BIGINT>.",
    ),
    "two texts for STRING": (
        DataTypes.STRING(),
        feature(BYTES, b"a", b"b"),
        "Declare ARRAY<BYTES> or ARRAY<STRING>.",
    ),
    "beyond INT": (
        DataTypes.INT(),
        feature(INTEGERS, varint(2**31)),
        "holds 2147483648, outside -2147483648 to 2147483647, but the column is declared INT.",
    ),
    "beyond TINYINT": (
        DataTypes.TINYINT(),
        feature(INTEGERS, varint(-129)),
        "holds -129, outside -128 to 127, but",
    ),
    "2 for BOOLEAN": (
        DataTypes.BOOLEAN(),
        feature(INTEGERS, varint(2)),
        "holds 2, which is neither 0 nor 1, but",
    ),
    "an image for STRING": (
        DataTypes.STRING(),
        feature(BYTES, b"\xff\xd8"),
        "holds bytes that are no UTF-8 text, but the column is declared STRING. Declare BYTES.",
    ),
    "a long text": (
        DataTypes.VARCHAR(2),
        feature(BYTES, "äöü".encode()),
        "holds a text of 3 characters, but",
    ),
    "short bytes": (
        DataTypes.BINARY(2),
        feature(BYTES, b"1"),
        "holds a value of 1 bytes, but",
    ),
    "no kind for NOT NULL": (
        DataTypes.INT(nullable=False),
        b"",
        "has no value, but the column is declared INT NOT NULL.",
    ),
    "no value for NOT NULL": (
        DataTypes.INT(nullable=False),
        feature(INTEGERS),
        "has no value, but the column is declared INT NOT NULL.",
    ),
}


@pytest.mark.parametrize(("declared", "given", "words"), MISFITS.values(), ids=MISFITS)
def test_a_feature_that_does_not_fit_its_column_is_named_with_both_kinds(
    classes: Any, tmp_path: Path, declared: Any, given: bytes, words: str
) -> None:
    write_misfit(tmp_path / "a", given)
    cause = failure_of_reader(classes, tmp_path / "a", {"x": declared})
    assert f"TFRecord file file:{tmp_path}/a, record at byte 0: feature `x` " in cause
    assert words in cause


def test_a_job_fails_with_the_feature_that_does_not_fit(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    declared, given, words = MISFITS["a float for BIGINT"]
    write_misfit(tmp_path / "a", given)
    assert words in failure_of(tfrecord.read(t_env, tmp_path, {"x": declared}))


def write_misfit(path: Path, given: bytes) -> None:
    other = frame(example(entry("y", feature(INTEGERS, varint(1)))))
    path.write_bytes(frame(example(entry("x", given))) + other)


def test_a_null_in_an_array_cannot_be_written_and_names_the_element(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    table = values(t_env, {"xs": "ARRAY<INT>"}, "ARRAY[1, NULLIF(2, 2)]")
    with pytest.raises(Exception, match="Column `xs`: element 1 of the array is NULL"):
        tfrecord.write(table, tmp_path).execute().wait()


def test_a_damaged_file_is_not_tried_again(make_t_env: MakeEnvironment, tmp_path: Path) -> None:
    """With this strategy the job would go on for hours."""
    t_env = make_t_env(
        restart__strategy_type="fixed-delay",
        restart__strategy_fixed__delay_attempts="1000000",
        restart__strategy_fixed__delay_delay="10 s",
    )
    (tmp_path / "damaged").write_bytes(flipped(SECOND))
    assert "record at byte 30" in failure_of(tfrecord.read(t_env, tmp_path, X))


def test_columns_that_a_query_does_not_use_are_not_looked_at(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    text = entry("text", feature(BYTES, b"\xff"))
    (tmp_path / "a").write_bytes(frame(example(text, entry("x", feature(INTEGERS, varint(7))))))
    table = tfrecord.read(t_env, tmp_path, {"text": DataTypes.INT(nullable=False), **X})
    assert rows_of(table.select(table.x)) == [(7,)]
