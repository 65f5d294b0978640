"""Flink's SQL types: how each is declared, its Arrow type, its values and its extremes.

Values are plain: instants are whole numbers of the Arrow type's unit, a map is a dict.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.types as pt
from hypothesis import strategies as st

Values = st.SearchStrategy[Any]

_DAYS = (-719_162, 2_932_896)  # 0001-01-01 and 9999-12-31
_UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


@dataclass(frozen=True)
class Kind:
    """One SQL type.

    Attributes:
        sql: How SQL declares it.
        arrow: What it is on the wire.
        flink: Makes PyFlink's type, given `pyflink.table.DataTypes`.
        values: Any value but NULL.
        extremes: Values that every column of the type is to hold.
    """

    sql: str
    arrow: pa.DataType
    flink: Callable[[Any], Any]
    values: Values
    extremes: tuple[Any, ...]


def _whole(sql: str, method: str, bits: int) -> Kind:
    least, most = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    arrow = pa.from_numpy_dtype(np.dtype(f"int{bits}"))
    extremes = (least, most, 0, -1)
    return Kind(sql, arrow, lambda t: getattr(t, method)(), st.integers(least, most), extremes)


def _float(sql: str, bits: int) -> Kind:
    limits = np.finfo(np.dtype(f"float{bits}"))
    ends = [limits.max, limits.min, limits.tiny, limits.smallest_subnormal]
    largest_denormal = np.nextafter(limits.tiny, limits.tiny * 0)
    extremes = [float(x) for each in [*ends, largest_denormal] for x in (each, -each)]
    extremes += [0.0, -0.0, float("nan"), float("inf"), float("-inf"), 0.5]
    arrow = pa.float32() if bits == 32 else pa.float64()
    values = st.floats(width=32 if bits == 32 else 64)
    return Kind(sql, arrow, lambda t: getattr(t, sql)(), values, tuple(extremes))


def decimal(precision: int, scale: int) -> Kind:
    most = 10**precision - 1

    def scaled(value: int) -> Decimal:
        return Decimal((value < 0, tuple(int(d) for d in str(abs(value))), -scale))

    return Kind(
        f"DECIMAL({precision}, {scale})",
        pa.decimal128(precision, scale),
        lambda t: t.DECIMAL(precision, scale),
        st.integers(-most, most).map(scaled),
        tuple(scaled(value) for value in (most, -most, 0, 1)),
    )


_ALPHABET = st.characters(exclude_categories=["Cs"])
_TEXTS = (
    "",
    " ",
    "null",
    'Grüße, "Welt"\r\n\t\\',
    "\0",
    "a\0b\0",
    "\N{GRINNING FACE}\N{COMBINING ACUTE ACCENT}漢字\N{ZERO WIDTH NO-BREAK SPACE}",
    "'; DROP TABLE rows; --",
    "x" * 300,
)


def _text(sql: str, method: str, length: int | None, extremes: Iterable[str]) -> Kind:
    def declare(t: Any) -> Any:
        return t.STRING() if length is None else getattr(t, method)(length)

    most = 12 if length is None else length
    values = st.text(_ALPHABET, max_size=most)
    return Kind(sql, pa.utf8(), declare, values, tuple(extremes))


def _bytes(sql: str, method: str, least: int, most: int | None, *extremes: bytes) -> Kind:
    def declare(t: Any) -> Any:
        return t.BYTES() if most is None else getattr(t, method)(most)

    values = st.binary(min_size=least, max_size=12 if most is None else most)
    return Kind(sql, pa.binary(), declare, values, extremes)


def _unit(precision: int) -> str:
    return "s" if precision == 0 else ("ms", "us", "ns")[(precision - 1) // 3]


def time(precision: int) -> Kind:
    """TIME, whose values Flink holds in milliseconds whatever the precision."""
    unit = _unit(precision)
    step = max(_UNITS[unit] // 10 ** min(precision, 3), 1)
    last = 86_400 * _UNITS[unit] // step - 1
    arrow = pa.time32(unit) if precision <= 3 else pa.time64(unit)
    values = st.integers(0, last).map(lambda value: value * step)
    sql = f"TIME({precision})"
    return Kind(sql, arrow, lambda t: t.TIME(precision), values, (0, last * step))


def timestamp(precision: int, *, is_local: bool = False) -> Kind:
    unit = _unit(precision)
    step = _UNITS[unit] // 10**precision
    first, last = (86_400 * day * _UNITS[unit] for day in (_DAYS[0], _DAYS[1] + 1))
    first, last = max(first, -(2**63)), min(last - 1, 2**63 - 1)
    first, last = -(-first // step), last // step
    name = "TIMESTAMP_LTZ" if is_local else "TIMESTAMP"
    return Kind(
        f"{name}({precision})",
        pa.timestamp(unit, "UTC" if is_local else None),
        lambda t: getattr(t, name)(precision),
        st.integers(first, last).map(lambda value: value * step),
        tuple(value * step for value in (first, last, -1, 0)),
    )


def array(element: Kind, *, is_nullable: bool = True) -> Kind:
    values = st.none() | element.values if is_nullable else element.values
    nulls = ([None],) if is_nullable else ()
    suffix = "" if is_nullable else " NOT NULL"
    return Kind(
        f"ARRAY<{element.sql}{suffix}>",
        pa.list_(element.arrow),
        lambda t: t.ARRAY(
            element.flink(t) if is_nullable else _not_null(element.flink(t)),
        ),
        st.lists(values, max_size=4),
        ([], list(element.extremes), *nulls, list(element.extremes[:1]) * 9),
    )


def row(**fields: Kind) -> Kind:
    names = list(fields)
    return Kind(
        f"ROW<{', '.join(f'`{name}` {kind.sql}' for name, kind in fields.items())}>",
        pa.struct([(name, kind.arrow) for name, kind in fields.items()]),
        lambda t: t.ROW([t.FIELD(name, kind.flink(t)) for name, kind in fields.items()]),
        st.fixed_dictionaries({name: st.none() | kind.values for name, kind in fields.items()}),
        (
            dict.fromkeys(names),
            {name: kind.extremes[0] for name, kind in fields.items()},
            {name: kind.extremes[-1] for name, kind in fields.items()},
        ),
    )


def map_of(key: Kind, value: Kind) -> Kind:
    return Kind(
        f"MAP<{key.sql}, {value.sql}>",
        pa.map_(key.arrow, value.arrow),
        lambda t: t.MAP(key.flink(t), value.flink(t)),
        st.dictionaries(key.values, st.none() | value.values, max_size=3),
        (
            {},
            dict.fromkeys(key.extremes),
            dict.fromkeys(key.extremes, value.extremes[-1]),
        ),
    )


def multiset(element: Kind) -> Kind:
    return Kind(
        f"MULTISET<{element.sql}>",
        pa.map_(element.arrow, pa.int32()),
        lambda t: t.MULTISET(element.flink(t)),
        st.dictionaries(element.values, st.integers(1, 2**31 - 1), max_size=3),
        ({}, dict.fromkeys(element.extremes, 1), dict.fromkeys(element.extremes, 2**31 - 1)),
    )


def _not_null(data_type: Any) -> Any:
    return data_type.not_null()


BOOLEAN = Kind("BOOLEAN", pa.bool_(), lambda t: t.BOOLEAN(), st.booleans(), (True, False))
INT = _whole("INT", "INT", 32)
BIGINT = _whole("BIGINT", "BIGINT", 64)
FLOAT = _float("FLOAT", 32)
DOUBLE = _float("DOUBLE", 64)
STRING = _text("STRING", "STRING", None, _TEXTS)
BYTES = _bytes("BYTES", "BYTES", 0, None, b"", b"\0", bytes(range(256)))
DATE = Kind("DATE", pa.date32(), lambda t: t.DATE(), st.integers(*_DAYS), (*_DAYS, -1, 0))

KINDS: dict[str, Kind] = {
    "bool": BOOLEAN,
    "int8": _whole("TINYINT", "TINYINT", 8),
    "int16": _whole("SMALLINT", "SMALLINT", 16),
    "int32": INT,
    "int64": BIGINT,
    "float32": FLOAT,
    "float64": DOUBLE,
    "decimal1": decimal(1, 0),
    "decimal10": decimal(10, 2),
    "decimal18": decimal(18, 18),
    "decimal19": decimal(19, 0),
    "decimal38": decimal(38, 18),
    "decimal38_38": decimal(38, 38),
    "char3": _text("CHAR(3)", "CHAR", 3, ["a,b", "ä\n", "", "\0\0\0"]),
    "varchar5": _text("VARCHAR(5)", "VARCHAR", 5, ["", '",",\n', "\N{GRINNING FACE}" * 5]),
    "text": STRING,
    "binary2": _bytes("BINARY(2)", "BINARY", 2, 2, b"\x00\xff"),
    "varbinary4": _bytes("VARBINARY(4)", "VARBINARY", 0, 4, b"", b"\xff\x00\n,"),
    "bytes": BYTES,
    "date": DATE,
    **{f"time{p}": time(p) for p in (0, 1, 3, 6, 9)},
    **{f"ts{p}": timestamp(p) for p in range(10)},
    **{f"ltz{p}": timestamp(p, is_local=True) for p in range(10)},
    "bools": array(BOOLEAN),
    "ints": array(INT, is_nullable=False),
    "longs": array(BIGINT),
    "floats": array(FLOAT),
    "doubles": array(DOUBLE),
    "decimals": array(decimal(38, 3)),
    "texts": array(STRING),
    "blobs": array(BYTES),
    "dates": array(DATE),
    "times": array(time(0)),
    "stamps": array(timestamp(9)),
    "instants": array(timestamp(3, is_local=True)),
    "lists": array(array(INT)),
    "rows": array(row(q=DOUBLE, s=STRING)),
    "maps": array(map_of(STRING, INT)),
    "row": row(x=INT, y=STRING, z=array(row(q=DOUBLE, d=DATE))),
    "deep": row(a=row(b=row(c=map_of(STRING, array(timestamp(6)))))),
    "map": map_of(STRING, decimal(5, 1)),
    "map_of_lists": map_of(STRING, array(INT)),
    "map_of_rows": map_of(STRING, row(f=FLOAT, b=BYTES)),
    "map_of_maps": map_of(STRING, map_of(STRING, STRING)),
    "multiset": multiset(STRING),
    "map_by_int": map_of(INT, STRING),
    "map_by_instant": map_of(timestamp(9), DOUBLE),
    "map_by_decimal": map_of(decimal(20, 3), array(row(x=INT))),
    "multiset_of_dates": multiset(DATE),
}


@st.composite
def tables(draw: st.DrawFn, kinds: dict[str, Kind], rows: int) -> pa.Table:
    """Tables with a column per kind: each extreme, NULL and some other values in any order."""
    chance = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    columns = {}
    for name, kind in kinds.items():
        pool = [None, *kind.extremes, *draw(st.lists(kind.values, min_size=3, max_size=3))]
        picks = [*range(len(pool)), *chance.integers(0, len(pool), rows - len(pool))]
        values = [pool[pick] for pick in chance.permutation(picks)]
        columns[name] = pa.array([as_arrow(each, kind.arrow) for each in values], kind.arrow)
    return pa.table(columns)


def as_arrow(value: Any, kind: pa.DataType) -> Any:
    """Return what pyarrow makes an array of: pairs for a map."""
    if value is None:
        return None
    if pt.is_list(kind):
        return [as_arrow(each, kind.value_type) for each in value]
    if pt.is_struct(kind):
        return {field.name: as_arrow(value[field.name], field.type) for field in kind}
    if pt.is_map(kind):
        return [(key, as_arrow(each, kind.item_type)) for key, each in value.items()]
    return value


def plain(column: pa.Array | pa.ChunkedArray, *, nan_bits: bool = True) -> list[Any]:
    """Return plain values; a float is a text, which tells 0.0 from -0.0 and NaN from NaN.

    Args:
        column: Any Arrow array.
        nan_bits: Whether a NaN that is not the usual one counts as another value.
    """
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], column.type)
    kind = column.type
    if pt.is_floating(kind):
        values = _float_texts(column, nan_bits=nan_bits)
    elif pt.is_temporal(kind):
        values = column.cast(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    elif pt.is_list(kind):
        values = _cut(plain(column.values, nan_bits=nan_bits), column)
    elif pt.is_map(kind):
        halves = (plain(half, nan_bits=nan_bits) for half in (column.keys, column.items))
        values = [dict(pairs) for pairs in _cut([*zip(*halves, strict=True)], column)]
    elif pt.is_struct(kind):
        names = [field.name for field in kind]
        parts = (plain(column.field(name), nan_bits=nan_bits) for name in names)
        values = [dict(zip(names, each, strict=True)) for each in zip(*parts, strict=True)]
    else:
        values = column.to_pylist()
    valid = column.is_valid().to_pylist()
    return [value if ok else None for value, ok in zip(values, valid, strict=True)]


def _cut(flat: list[Any], column: pa.Array) -> list[Any]:
    ends = column.offsets.to_pylist()
    return [flat[start:end] for start, end in itertools.pairwise(ends)]


def _float_texts(column: pa.Array, *, nan_bits: bool) -> list[Any]:
    numbers = column.fill_null(0).to_numpy()
    texts = [each.hex() for each in numbers.astype(np.float64).tolist()]
    usual = np.array(np.nan, numbers.dtype).view(f"u{numbers.itemsize}")
    bits = numbers.view(usual.dtype)
    for index in np.flatnonzero(np.isnan(numbers) & (bits != usual)) if nan_bits else ():
        texts[index] = f"nan {bits[index]:x}"
    return texts
