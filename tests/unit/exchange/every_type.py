"""Rows with every SQL type and with NULL everywhere: the content of the golden files."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pyarrow as pa

ROW_TYPE = (
    "ROW<`bool` BOOLEAN, `int8` TINYINT, `int16` SMALLINT, `int32` INT, `int64` BIGINT,"
    " `float32` FLOAT, `float64` DOUBLE, `decimal` DECIMAL(10, 2), `decimal38` DECIMAL(38, 18),"
    " `text` STRING, `char3` CHAR(3), `bytes` BYTES, `binary2` BINARY(2), `day` DATE,"
    " `time0` TIME(0), `time3` TIME(3), `ts0` TIMESTAMP(0), `ts3` TIMESTAMP(3),"
    " `ts6` TIMESTAMP(6), `ts9` TIMESTAMP(9), `ltz0` TIMESTAMP_LTZ(0), `ltz3` TIMESTAMP_LTZ(3),"
    " `ltz6` TIMESTAMP_LTZ(6), `ltz9` TIMESTAMP_LTZ(9), `floats` ARRAY<FLOAT>,"
    " `longs` ARRAY<BIGINT>, `bools` ARRAY<BOOLEAN>, `decimals` ARRAY<DECIMAL(38, 3)>,"
    " `texts` ARRAY<STRING>, `times` ARRAY<TIMESTAMP(9)>, `lists` ARRAY<ARRAY<INT>>,"
    " `row` ROW<`x` INT, `y` STRING, `z` ARRAY<ROW<`q` DOUBLE>>>,"
    " `map` MAP<STRING, DECIMAL(5, 1)>, `multiset` MULTISET<STRING>>"
)


SCHEMA = pa.schema(
    [
        ("bool", pa.bool_()),
        ("int8", pa.int8()),
        ("int16", pa.int16()),
        ("int32", pa.int32()),
        ("int64", pa.int64()),
        ("float32", pa.float32()),
        ("float64", pa.float64()),
        ("decimal", pa.decimal128(10, 2)),
        ("decimal38", pa.decimal128(38, 18)),
        ("text", pa.utf8()),
        ("char3", pa.utf8()),
        ("bytes", pa.binary()),
        ("binary2", pa.binary()),
        ("day", pa.date32()),
        ("time0", pa.time32("s")),
        ("time3", pa.time32("ms")),
        ("ts0", pa.timestamp("s")),
        ("ts3", pa.timestamp("ms")),
        ("ts6", pa.timestamp("us")),
        ("ts9", pa.timestamp("ns")),
        ("ltz0", pa.timestamp("s", "UTC")),
        ("ltz3", pa.timestamp("ms", "UTC")),
        ("ltz6", pa.timestamp("us", "UTC")),
        ("ltz9", pa.timestamp("ns", "UTC")),
        ("floats", pa.list_(pa.float32())),
        ("longs", pa.list_(pa.int64())),
        ("bools", pa.list_(pa.bool_())),
        ("decimals", pa.list_(pa.decimal128(38, 3))),
        ("texts", pa.list_(pa.utf8())),
        ("times", pa.list_(pa.timestamp("ns"))),
        ("lists", pa.list_(pa.list_(pa.int32()))),
        (
            "row",
            pa.struct(
                [
                    ("x", pa.int32()),
                    ("y", pa.utf8()),
                    ("z", pa.list_(pa.struct([("q", pa.float64())]))),
                ]
            ),
        ),
        ("map", pa.map_(pa.utf8(), pa.decimal128(5, 1))),
        ("multiset", pa.map_(pa.utf8(), pa.int32())),
        ("__timestamp__", pa.int64()),
    ]
)

_UTC = dt.timezone.utc


def _naive(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)  # TIMESTAMP has no time zone


_FULL: dict[str, Any] = {
    "bool": True,
    "int8": -128,
    "int16": 32767,
    "int32": -(2**31),
    "int64": 2**63 - 1,
    "float32": -0.0,
    "float64": 5e-324,
    "decimal": Decimal("-12345678.90"),
    "decimal38": Decimal("12345678901234567890.123456789012345678"),
    "text": 'Grüße, "Welt"\n\t\N{GRINNING FACE}',
    "char3": "a,b",
    "bytes": bytes(range(256)),
    "binary2": b"\x00\xff",
    "day": dt.date(1, 1, 1),
    "time0": dt.time(23, 59, 59),
    "time3": dt.time(0, 0, 0, 1000),
    "ts0": _naive("0001-01-01"),
    "ts3": _naive("1969-12-31T23:59:59.999"),
    "ts6": _naive("9999-12-31T23:59:59.999999"),
    "ts9": 1388534399123456789,
    "ltz0": dt.datetime(2013, 12, 31, tzinfo=_UTC),
    "ltz3": dt.datetime(2013, 12, 31, 1, 2, 3, 4000, tzinfo=_UTC),
    "ltz6": dt.datetime(1900, 12, 31, 1, 2, 3, 4567, tzinfo=_UTC),
    "ltz9": -(2**63),
    "floats": [1.5, None, -0.0],
    "longs": [2**62, -1],
    "bools": [True, None, False, True, True, False, True, True, True],
    "decimals": [Decimal("0.001"), None],
    "texts": ["", None, "ä"],
    "times": [1, None, -1],
    "lists": [[1, None], None, [], [2]],
    "row": {"x": 1, "y": None, "z": [{"q": 2.5}, None, {"q": None}]},
    "map": [("a", Decimal("1.5")), ("b", None)],
    "multiset": [("x", 2)],
    "__timestamp__": -1,
}
_NULL: dict[str, Any] = dict.fromkeys(_FULL)
_EMPTY: dict[str, Any] = {
    **_FULL,
    "bool": False,
    "text": "",
    "bytes": b"",
    **{
        name: [] for name in ("floats", "longs", "bools", "decimals", "texts", "times", "lists")
    },
    "row": {"x": None, "y": "", "z": []},
    "map": [],
    "multiset": [],
    "__timestamp__": 0,
}

ROWS: list[dict[str, Any]] = [_FULL, _NULL, _EMPTY, _NULL, _FULL, _FULL, _EMPTY, _NULL, _FULL]


def batch() -> pa.RecordBatch:
    """Return the rows with the schema of the wire."""
    return pa.RecordBatch.from_pylist(ROWS, schema=SCHEMA)
