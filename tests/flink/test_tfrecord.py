"""Tables over TFRecord files, compared with what TensorFlow itself writes and reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyflink.table import (
    DataTypes,
    EnvironmentSettings,
    StreamTableEnvironment,
    Table,
    TableEnvironment,
)
from pyflink.table.types import ArrayType

from headrace.config import RoleConfig
from headrace.errors import ConfigError, PlanError
from headrace.operator import chained_role
from headrace.tensorflow import tfrecord

from .conftest import MakeEnvironment
from .records import entry, example, field, frame, varint
from .tables import rows_of, values
from .tensorflow_process import Example, TensorFlowProcess, bits, float_of

LONGS = [0, -1, 1, 127, 128, 2**31, -(2**31) - 1, 2**63 - 1, -(2**63)]
FLOATS = [0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0x00000001, 0x807FFFFF]
FLOATS += [0x7F7FFFFF, bits(0.5), bits(-1e-3)]
TEXTS = ["", "a", "Zürich ÜÖÄ", "日本語", "🚂\x00 end", "x" * 70_000]
BLOBS = [b"", b"\x00", b"\xff\xfe not UTF-8", bytes(range(256)) * 300]

SCHEMA = {
    "id": DataTypes.BIGINT(nullable=False),
    "flag": DataTypes.BOOLEAN(),
    "tiny": DataTypes.TINYINT(),
    "small": DataTypes.SMALLINT(),
    "int": DataTypes.INT(),
    "long": DataTypes.BIGINT(),
    "float": DataTypes.FLOAT(),
    "text": DataTypes.STRING(),
    "char": DataTypes.CHAR(3),
    "bytes": DataTypes.BYTES(),
    "binary": DataTypes.BINARY(2),
    "flags": DataTypes.ARRAY(DataTypes.BOOLEAN()),
    "tinies": DataTypes.ARRAY(DataTypes.TINYINT()),
    "ints": DataTypes.ARRAY(DataTypes.INT()),
    "longs": DataTypes.ARRAY(DataTypes.BIGINT()),
    "floats": DataTypes.ARRAY(DataTypes.FLOAT()),
    "texts": DataTypes.ARRAY(DataTypes.STRING()),
    "blobs": DataTypes.ARRAY(DataTypes.BYTES()),
    "größe/cm": DataTypes.INT(),
}


def utf8(*texts: str) -> list[bytes]:
    return [text.encode() for text in texts]


def every_type() -> list[Example]:
    """Examples with each extreme of each type, empty lists, and missing features."""
    count = max(len(LONGS), len(FLOATS), len(TEXTS), len(BLOBS))
    found: list[Example] = [
        {
            "id": ["int64", [i]],
            "flag": ["int64", [i % 2]],
            "tiny": ["int64", [(-128, 127)[i % 2]]],
            "small": ["int64", [(-32_768, 32_767)[i % 2]]],
            "int": ["int64", [(-(2**31), 2**31 - 1)[i % 2]]],
            "long": ["int64", [LONGS[i % len(LONGS)]]],
            "float": ["float", [FLOATS[i % len(FLOATS)]]],
            "text": ["bytes", utf8(TEXTS[i % len(TEXTS)])],
            "char": ["bytes", utf8("äöü")],
            "bytes": ["bytes", [BLOBS[i % len(BLOBS)]]],
            "binary": ["bytes", [b"\x00\xff"]],
            "flags": ["int64", [1, 0, 1][: i % 4]],
            "tinies": ["int64", [-128, 127][: i % 3]],
            "ints": ["int64", [*range(i)]],
            "longs": ["int64", LONGS[:i]],
            "floats": ["float", FLOATS[:i]],
            "texts": ["bytes", utf8(*TEXTS[:i])],
            "blobs": ["bytes", BLOBS[:i]],
            "größe/cm": ["int64", [180 + i]],
        }
        for i in range(count)
    ]
    return [*found, {"id": ["int64", [count]]}]


def as_row(each: Example) -> dict[str, Any]:
    """The row of an example, floats as their bits."""
    row: dict[str, Any] = dict.fromkeys(SCHEMA)
    for name, (_, cells) in each.items():
        if "text" in name or name == "char":
            cells = [cell.decode() for cell in cells]
        if "flag" in name:
            cells = [bool(cell) for cell in cells]
        row[name] = cells if isinstance(SCHEMA[name], ArrayType) else cells[0]
    return row


def with_bits(row: dict[str, Any]) -> dict[str, Any]:
    """The row with floats as their bits."""
    if row["float"] is None:
        return row
    return {**row, "float": bits(row["float"]), "floats": [bits(x) for x in row["floats"]]}


def keep(path: str) -> Any:
    """An entry that keeps what it gets in an Arrow file, and emits how many rows it were."""

    def entry(ctx: Any) -> None:
        rows = 0
        with pa.ipc.new_file(path, ctx.input_schema) as file:
            for batch in ctx.arrow_batches(rows=50):
                file.write(batch)
                rows += batch.num_rows
        ctx.emit({"rows": [rows]})

    return entry


def parts(folder: Path) -> list[Path]:
    """The finished files."""
    return sorted(path for path in folder.rglob("part-*") if path.is_file())


def test_every_type_is_read_as_tensorflow_wrote_it(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    tensorflow.write(tmp_path / "a", every_type())
    kept = tmp_path / "kept.arrow"
    entry = keep(str(kept))
    table = tfrecord.read(t_env, tmp_path / "a", SCHEMA)
    count = {"rows": DataTypes.BIGINT()}
    output = chained_role("keep", RoleConfig(entry=entry), input=table, output=count)
    assert isinstance(output, Table)
    assert rows_of(output) == [(len(every_type()),)]
    with pa.ipc.open_file(kept) as file:
        rows = file.read_all().to_pylist()
    assert [with_bits(row) for row in rows] == [as_row(each) for each in every_type()]


@pytest.mark.parametrize("compression", ["NONE", "GZIP", "ZLIB"])
def test_what_is_read_and_written_again_is_what_tensorflow_wrote(
    t_env: StreamTableEnvironment,
    tensorflow: TensorFlowProcess,
    tmp_path: Path,
    compression: Any,
) -> None:
    of_tensorflow = "" if compression == "NONE" else compression
    tensorflow.write(tmp_path / "a", every_type(), of_tensorflow)
    table = tfrecord.read(t_env, tmp_path / "a", SCHEMA)
    tfrecord.write(table, tmp_path / "out", compression=compression).execute().wait()
    assert tensorflow.read(parts(tmp_path / "out"), of_tensorflow) == every_type()


def test_tensorflow_parses_what_flink_computed(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    columns = {"id": "BIGINT", "x": "FLOAT", "word": "STRING", "xs": "ARRAY<FLOAT>"}
    table = values(
        t_env,
        columns,
        "1, 0.5, 'zwei ', ARRAY[1.5, -2.5]",
        "2, 1.25, 'zwölf', ARRAY[0.25]",
    )
    tfrecord.write(table, tmp_path).execute().wait()
    spec = {
        "id": ("int64", False),
        "x": ("float32", False),
        "word": ("string", False),
        "xs": ("float32", True),
    }
    parsed = tensorflow.parse(parts(tmp_path), spec)
    assert parsed == {
        "id": [1, 2],
        "x": [0.5, 1.25],
        "word": ["zwei ", "zwölf"],
        "xs": [[1.5, -2.5], [0.25]],
    }


def test_null_is_a_missing_feature_and_an_empty_array_is_there(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    table = t_env.sql_query(
        "SELECT CASE WHEN is_full THEN 1 END AS x, "
        "CASE WHEN is_full THEN ARRAY_REMOVE(ARRAY[1], 1) END AS xs, "
        "CASE WHEN is_full THEN ARRAY_REMOVE(ARRAY['a'], 'a') END AS words "
        "FROM (VALUES (TRUE), (FALSE)) AS v(is_full)"
    )
    tfrecord.write(table, tmp_path).execute().wait()
    assert tensorflow.read(parts(tmp_path)) == [
        {"x": ["int64", [1]], "xs": ["int64", []], "words": ["bytes", []]},
        {},
    ]
    schema = {
        "x": DataTypes.INT(),
        "xs": DataTypes.ARRAY(DataTypes.INT()),
        "words": DataTypes.ARRAY(DataTypes.STRING()),
    }
    assert rows_of(tfrecord.read(t_env, tmp_path, schema)) == [
        (1, [], []),
        (None, None, None),
    ]


def test_a_feature_without_values_is_null_for_a_single_value(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    tensorflow.write(tmp_path / "a", [{"x": [kind, []]} for kind in ("int64", "")])
    assert rows_of(tfrecord.read(t_env, tmp_path, {"x": DataTypes.INT()})) == [(None,), (None,)]


def test_a_double_column_reads_floats_exactly(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    tensorflow.write(tmp_path / "a", [{"x": ["float", [0.1]], "xs": ["float", [0.2, 1e-45]]}])
    schema = {"x": DataTypes.DOUBLE(), "xs": DataTypes.ARRAY(DataTypes.DOUBLE())}
    near = [float_of(bits(value)) for value in (0.1, 0.2, 1e-45)]
    assert rows_of(tfrecord.read(t_env, tmp_path, schema)) == [(near[0], near[1:])]


def test_doubles_are_written_as_floats_when_asked_for(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    table = values(t_env, {"x": "DOUBLE", "xs": "ARRAY<DOUBLE>"}, "0.1, ARRAY[0.2]")
    with pytest.raises(PlanError, match=r"`x` has the type DOUBLE.* CAST\(`x` AS FLOAT\)"):
        tfrecord.write(table, tmp_path)
    tfrecord.write(table, tmp_path, narrow_doubles=True).execute().wait()
    assert tensorflow.read(parts(tmp_path)) == [
        {"x": ["float", [bits(0.1)]], "xs": ["float", [bits(0.2)]]}
    ]


def test_files_of_any_compression_are_read_from_one_directory(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    for i, compression in enumerate(["", "GZIP", "ZLIB"]):
        for j in range(2):
            padded: Example = {"id": ["int64", [2 * i + j]], "x": ["bytes", [b"x" * 1000 * j]]}
            tensorflow.write(tmp_path / f"{compression}{j}", [padded], compression)
    found = rows_of(tfrecord.read(t_env, tmp_path, {"id": DataTypes.BIGINT()}))
    assert sorted(found) == [(i,) for i in range(6)]


@pytest.mark.parametrize("length", [0x8B1F, 0x9C78, 0x0178])
def test_a_record_whose_length_looks_like_compression_is_read(
    t_env: StreamTableEnvironment, tmp_path: Path, length: int
) -> None:
    rest = length - len(example(entry("x", field(1, field(1, b"y" * length))))) + length
    data = example(entry("x", field(1, field(1, b"y" * rest))))
    assert len(data) == length
    (tmp_path / "a").write_bytes(frame(data))
    assert rows_of(tfrecord.read(t_env, tmp_path, {"x": DataTypes.BYTES()})) == [(b"y" * rest,)]


def test_every_encoding_that_protobuf_allows_is_read(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    def one(value: int) -> bytes:
        return field(1, varint(value))  # packed

    longs = b"".join(varint(1 << 3) + varint(value) for value in (1, -2))  # not packed
    floats = b"".join(varint(1 << 3 | 5) + value for value in (b"\0\0\0\x3f", b"\0\0\0\xbf"))
    unknown = varint(9 << 3) + varint(7) + field(10, b"?") + varint(11 << 3 | 5) + b"1234"
    backwards = field(1, field(2, field(3, field(1, varint(4)))), field(1, b"a"))
    records = [
        example(entry("longs", field(3, longs)), entry("floats", field(2, floats))),
        example(entry("longs", field(3, field(1, varint(1)), longs), field(3, longs))),
        example(entry("longs", field(2, floats), field(3, longs))),
        example(entry("a", field(3, field(1, varint(3)))), backwards),
        unknown
        + field(1, unknown, entry("a", unknown, field(3, unknown, field(1, varint(5))))),
        example(entry("a", field(3, field(1, varint(6))))) + example(entry("longs", field(3))),
        b"",
    ]
    (tmp_path / "a").write_bytes(b"".join(map(frame, records)))
    schema = {
        "a": DataTypes.INT(),
        "longs": DataTypes.ARRAY(DataTypes.BIGINT()),
        "floats": DataTypes.ARRAY(DataTypes.FLOAT()),
    }
    assert rows_of(tfrecord.read(t_env, tmp_path, schema)) == [
        (None, [1, -2], [0.5, -0.5]),
        (None, [1, 1, -2, 1, -2], None),
        (None, [1, -2], None),
        (4, None, None),
        (5, None, None),
        (6, [], None),
        (None, None, None),
    ]


def test_nothing_is_read_from_empty_files_and_written_for_no_rows(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for compression in ("", "GZIP", "ZLIB"):
        tensorflow.write(source / f"empty{compression}", [], compression)
    table = tfrecord.read(t_env, source, {"x": DataTypes.BIGINT()})
    assert rows_of(table) == []
    tfrecord.write(table, tmp_path / "out").execute().wait()
    assert tensorflow.read(parts(tmp_path / "out")) == []


def test_many_files_of_small_and_large_records_are_read_in_parallel(
    make_t_env: MakeEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    for i in range(30):
        size = (0, 100, 300_000, 3_000_000)[i % 4]
        examples: list[Example] = [
            {"id": ["int64", [10 * i + j]], "x": ["bytes", [bytes([j]) * size]]}
            for j in range(10)
        ]
        if i % 10 == 0:
            tensorflow.write(tmp_path / f"{i}", examples)
        else:
            written = [
                example(
                    entry("id", field(3, field(1, varint(10 * i + j)))),
                    entry("x", field(1, field(1, bytes([j]) * (size // 1000)))),
                )
                for j in range(10)
            ]
            (tmp_path / f"{i}").write_bytes(b"".join(map(frame, written)))
    schema = {"id": DataTypes.BIGINT(), "x": DataTypes.BYTES()}
    table = tfrecord.read(make_t_env(2), tmp_path, schema)
    found = dict(rows_of(table.select(table.id, table.x)))
    assert sorted(found) == [*range(300)]
    assert found[205] == b"\x05" * (100 if 20 % 4 == 1 else 0)
    assert found[109] == b"\x09" * 300_000


def test_sql_reads_and_writes_partitions_and_only_the_columns_it_uses(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    tfrecord.add_format(t_env)
    t_env.execute_sql(
        "CREATE TABLE samples (x FLOAT, label INT, file STRING METADATA FROM 'file.name' "
        "VIRTUAL, `day` STRING) PARTITIONED BY (`day`) WITH ('connector' = 'filesystem', "
        f"'path' = 'file://{tmp_path}', 'format' = 'tfrecord', "
        "'tfrecord.compression' = 'gzip')"
    )
    t_env.execute_sql(
        "INSERT INTO samples VALUES (1.5, 1, '2026-11-25'), (2.5, 2, '2026-11-26'), "
        "(3.5, CAST(NULL AS INT), '2026-11-26')"
    ).wait()
    assert {path.parent.name for path in parts(tmp_path)} == {
        "day=2026-11-25",
        "day=2026-11-26",
    }
    (first,) = parts(tmp_path / "day=2026-11-25")
    assert tensorflow.read([first], "GZIP") == [
        {"x": ["float", [bits(1.5)]], "label": ["int64", [1]]}
    ]
    query = "SELECT x, label FROM samples WHERE `day` = '2026-11-26'"
    assert sorted(rows_of(t_env.sql_query(query))) == [(2.5, 2), (3.5, None)]
    names = rows_of(t_env.sql_query("SELECT DISTINCT file FROM samples"))
    assert sorted(names) == sorted({(path.name,) for path in parts(tmp_path)})
    counted = rows_of(t_env.sql_query("SELECT COUNT(*) FROM samples"))
    assert counted[-1] == (3,)


def test_batch_mode_reads_and_writes_too(tensorflow: TensorFlowProcess, tmp_path: Path) -> None:
    t_env = TableEnvironment.create(EnvironmentSettings.in_batch_mode())
    t_env.get_config().set("parallelism.default", "2")
    tensorflow.write(tmp_path / "a", [{"x": ["int64", [i]]} for i in range(100)])
    table = tfrecord.read(t_env, tmp_path / "a", {"x": DataTypes.BIGINT()})
    tfrecord.write(table.select((table.x + 1).alias("x")), tmp_path / "out").execute().wait()
    found = tensorflow.read(parts(tmp_path / "out"))
    assert sorted(each["x"][1][0] for each in found) == [*range(1, 101)]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (DataTypes.DECIMAL(10, 2), "DECIMAL(10, 2)|CAST(`c` AS FLOAT), or AS STRING"),
        (DataTypes.DATE(), "DATE|CAST(`c` AS STRING)"),
        (DataTypes.TIME(), "TIME(0)|CAST(`c` AS STRING)"),
        (DataTypes.TIMESTAMP(3), "TIMESTAMP(3)|EXTRACT(EPOCH FROM `c`)"),
        (DataTypes.TIMESTAMP_LTZ(3), "TIMESTAMP_LTZ(3)|EXTRACT(EPOCH FROM `c`)"),
        (DataTypes.ROW([DataTypes.FIELD("a", DataTypes.INT())]), "ROW<|Select its fields"),
        (DataTypes.MAP(DataTypes.STRING(), DataTypes.INT()), "MAP<|`c`['key']"),
        (
            DataTypes.ARRAY(DataTypes.ARRAY(DataTypes.INT())),
            "ARRAY<ARRAY<INT>>|Make it an array of numbers",
        ),
        (DataTypes.MULTISET(DataTypes.INT()), "MULTISET<INT>|or leave it out"),
    ],
    ids=str,
)
def test_a_column_that_no_feature_holds_is_a_plan_error_that_says_what_to_do(
    t_env: StreamTableEnvironment, tmp_path: Path, kind: Any, words: str
) -> None:
    with pytest.raises(PlanError, match="Column `c` has the type") as caught:
        tfrecord.read(t_env, tmp_path, {"a": DataTypes.INT(), "c": kind})
    assert all(word in str(caught.value) for word in words.split("|"))


def test_what_a_plan_error_advises_can_be_written(
    t_env: StreamTableEnvironment, tensorflow: TensorFlowProcess, tmp_path: Path
) -> None:
    columns = {"t": "TIMESTAMP(3)", "d": "DATE", "n": "DECIMAL(10, 2)", "xs": "ARRAY<DOUBLE>"}
    given = values(
        t_env, columns, "TIMESTAMP '2026-11-26 00:00:01', DATE '2026-11-26', 1.25, ARRAY[0.5]"
    )
    with pytest.raises(PlanError, match="Column `t` has the type TIMESTAMP"):
        tfrecord.write(given, tmp_path)
    table = t_env.sql_query(
        "SELECT EXTRACT(EPOCH FROM t) AS t, CAST(d AS STRING) AS d, CAST(n AS FLOAT) AS n, "
        f"CAST(n AS STRING) AS digits, CAST(xs AS ARRAY<FLOAT>) AS xs FROM {given}"
    )
    tfrecord.write(table, tmp_path).execute().wait()
    assert tensorflow.read(parts(tmp_path)) == [
        {
            "t": ["int64", [1795651201]],
            "d": ["bytes", [b"2026-11-26"]],
            "n": ["float", [bits(1.25)]],
            "digits": ["bytes", [b"1.25"]],
            "xs": ["float", [bits(0.5)]],
        }
    ]


def test_misspelt_options_and_foreign_objects_are_refused(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    table = values(t_env, {"x": "INT"}, "1")
    with pytest.raises(ConfigError, match="compression='LZ4' is unknown; use one of NONE"):
        tfrecord.write(table, tmp_path, compression="LZ4")  # type: ignore[arg-type]
    misspelt = tfrecord.write(table, tmp_path, options={"tfrecord.compressor": "GZIP"})
    with pytest.raises(Exception, match=r"has no option 'tfrecord.compressor'"):
        misspelt.execute()
    with pytest.raises(PlanError, match="table is a str"):
        tfrecord.write("rows", tmp_path)
    with pytest.raises(PlanError, match="t_env is a NoneType"):
        tfrecord.read(None, tmp_path, {"x": DataTypes.INT()})
    with pytest.raises(PlanError, match=r"schema\['x'\]='INT' is not a PyFlink type"):
        tfrecord.read(t_env, tmp_path, {"x": "INT"})
    with pytest.raises(PlanError, match="declares no column"):
        tfrecord.read(t_env, tmp_path, {})
