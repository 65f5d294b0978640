"""Plain values as Flink's JSON format writes them and reads them: an oracle of its own."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.types as pt

_EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001 (TIMESTAMP has no time zone)
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def write_rows(path: Path, table: pa.Table, columns: dict[str, list[Any]]) -> None:
    """Write plain columns as lines of JSON that Flink reads."""
    types = [table.schema.field(name).type for name in columns]
    with path.open("w", encoding="utf-8") as lines:
        for values in zip(*columns.values(), strict=True):
            cells = [_written(v, kind) for v, kind in zip(values, types, strict=True)]
            lines.write(json.dumps(dict(zip(columns, cells, strict=True))) + "\n")


def read_rows(folder: Path, schema: pa.Schema) -> dict[str, list[Any]]:
    """Return the plain columns of a JSON sink, in the order of its first column."""
    files = [path for path in folder.rglob("part-*") if path.is_file()]
    rows = [json.loads(line, parse_float=str) for path in files for line in _lines(path)]
    rows.sort(key=lambda row: int(row[schema.names[0]]))
    return {
        field.name: [_read(row[field.name], field.type) for row in rows] for field in schema
    }


def _lines(path: Path) -> Iterable[str]:
    return path.read_text(encoding="utf-8").split("\n")[:-1]  # not at other line ends


def _written(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pt.is_list(kind):
        return [_written(each, kind.value_type) for each in value]
    if pt.is_struct(kind):
        return {field.name: _written(value[field.name], field.type) for field in kind}
    if pt.is_map(kind):
        return {key: _written(each, kind.item_type) for key, each in value.items()}
    if pt.is_floating(kind):
        return repr(float.fromhex(value)).replace("inf", "Infinity").replace("nan", "NaN")
    if pt.is_decimal(kind):
        return f"{value:f}"
    if pt.is_binary(kind):
        return base64.b64encode(value).decode()
    if pt.is_date(kind):
        return (_EPOCH + dt.timedelta(days=value)).date().isoformat()
    if pt.is_time(kind):
        return _instant(value, kind.unit).partition(" ")[2]
    if pt.is_timestamp(kind):
        return _instant(value, kind.unit) + ("Z" if kind.tz else "")
    return value


def _read(value: Any, kind: pa.DataType) -> Any:
    if value is None:
        return None
    if pt.is_list(kind):
        return [_read(each, kind.value_type) for each in value]
    if pt.is_struct(kind):
        return {field.name: _read(value[field.name], field.type) for field in kind}
    if pt.is_map(kind):
        return {key: _read(each, kind.item_type) for key, each in value.items()}
    if pt.is_floating(kind):
        return float(kind.to_pandas_dtype()(value)).hex()
    if pt.is_decimal(kind):
        return Decimal(str(value))
    if pt.is_binary(kind):
        return base64.b64decode(value)
    if pt.is_date(kind):
        return (dt.date.fromisoformat(value) - _EPOCH.date()).days
    if pt.is_time(kind):
        return _units(f"1970-01-01 {value}", kind.unit)
    if pt.is_timestamp(kind):
        return _units(value.removesuffix("Z"), kind.unit)
    return value


def _instant(value: int, unit: str) -> str:
    seconds, rest = divmod(value, _UNITS[unit])
    moment = (_EPOCH + dt.timedelta(seconds=seconds)).isoformat(" ")
    fraction = f".{rest:0{len(str(_UNITS[unit])) - 1}d}" if unit != "s" else ""
    return moment + fraction


def _units(text: str, unit: str) -> int:
    moment, _, fraction = text.partition(".")
    seconds = round((dt.datetime.fromisoformat(moment) - _EPOCH).total_seconds())
    nanos = int(fraction.ljust(9, "0")) if fraction else 0
    scaled, lost = divmod(nanos * _UNITS[unit], 10**9)
    assert not lost, f"{text} is finer than {unit}"
    return seconds * _UNITS[unit] + scaled
