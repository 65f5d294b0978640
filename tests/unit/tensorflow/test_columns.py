"""Columns of the input as tensors: specs, values, NULL, and what has no tensor."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import ConfigError, DataError
from headrace.tensorflow.columns import ColumnPlan, plan_columns

NUMBERS = [
    pa.int8(),
    pa.int16(),
    pa.int32(),
    pa.int64(),
    pa.float32(),
    pa.float64(),
    pa.bool_(),
]


def planned(column: Any, kind: pa.DataType, **rules: Any) -> tuple[pa.RecordBatch, Any]:
    batch = pa.record_batch([pa.array(column, kind)], names=["c"])
    return batch, plan_columns(batch.schema, **rules)


def values(column: Any, kind: pa.DataType, **rules: Any) -> dict[str, Any]:
    batch, plans = planned(column, kind, **rules)
    return {plan.name: [array.tolist() for array in plan.read(batch)] for plan in plans}


def only(plans: list[ColumnPlan]) -> ColumnPlan:
    (plan,) = plans
    return plan


@pytest.mark.parametrize("kind", NUMBERS, ids=str)
def test_numbers_keep_their_type_and_value(kind: pa.DataType) -> None:
    column = [True, False, True] if pa.types.is_boolean(kind) else [1, 0, 3]
    batch, plans = planned(column, kind)
    plan = only(plans)
    (array,) = plan.read(batch)
    assert plan.shape == ()
    assert array.dtype == plan.dtype == np.dtype(kind.to_pandas_dtype())
    assert array.tolist() == batch.column(0).to_pylist()


@pytest.mark.parametrize(
    ("kind", "column"),
    [(pa.string(), ["a", "", "ö"]), (pa.binary(), [b"a", b"", b"\x00\xff"])],
    ids=str,
)
def test_strings_and_bytes_are_objects(kind: pa.DataType, column: list[Any]) -> None:
    _, plans = planned(column, kind)
    assert only(plans).dtype == np.dtype(object)
    assert values(column, kind) == {"c": [column]}


def test_arrays_of_one_length_have_the_given_shape() -> None:
    column = [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]
    batch, plans = planned(column, pa.list_(pa.float32()), shapes={"c": (2, 2)})
    plan = only(plans)
    (array,) = plan.read(batch)
    assert (plan.shape, plan.dtypes) == ((2, 2), [np.dtype(np.float32)])
    assert array.tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]


def test_other_arrays_are_ragged() -> None:
    column = [[1, 2], [], [3]]
    _, plans = planned(column, pa.list_(pa.int64()))
    assert only(plans).shape is None
    assert values(column, pa.list_(pa.int64())) == {"c": [[1, 2, 3], [0, 2, 2, 3]]}


def test_slices_of_a_batch_have_their_own_rows_only() -> None:
    batch = pa.record_batch(
        [pa.array([[1], [2, 3], [4]]), pa.array(["a", "b", "c"])], ["l", "s"]
    )
    ragged, text = plan_columns(batch.schema)
    part = batch.slice(1)
    assert [array.tolist() for array in ragged.read(part)] == [[2, 3, 4], [0, 2, 3]]
    assert text.read(part)[0].tolist() == ["b", "c"]


@pytest.mark.parametrize("kind", [*NUMBERS, pa.string(), pa.list_(pa.int64())], ids=str)
def test_a_batch_without_rows_has_arrays_without_rows(kind: pa.DataType) -> None:
    batch, plans = planned([], kind)
    plan = only(plans)
    arrays = plan.read(batch)
    assert [array.dtype for array in arrays] == plan.dtypes
    assert [len(array) for array in arrays] == ([0] if plan.shape == () else [0, 1])


@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_null_is_nan_in_floating_point(kind: pa.DataType) -> None:
    for nulls in ("error", "mask"):
        (found,) = values([1.0, None], kind, nulls=nulls)["c"]
        assert found[0] == 1.0
        assert np.isnan(found[1])


@pytest.mark.parametrize("kind", [pa.int32(), pa.bool_(), pa.string(), pa.binary()], ids=str)
def test_null_is_an_error_that_says_what_to_do(kind: pa.DataType) -> None:
    batch, plans = planned([None, None], kind)
    with pytest.raises(DataError) as caught:
        only(plans).read(batch)
    text = str(caught.value)
    for part in ("'c'", "2 NULL in 2", "COALESCE(c", "defaults={'c'", "'mask'", "'c__valid'"):
        assert part in text, text


@pytest.mark.parametrize(
    ("kind", "column", "zero"),
    [
        (pa.int32(), [1, None], [1, 0]),
        (pa.bool_(), [True, None], [True, False]),
        (pa.string(), ["a", None], ["a", ""]),
        (pa.binary(), [b"a", None], [b"a", b""]),
    ],
    ids=str,
)
def test_a_mask_says_where_null_was(
    kind: pa.DataType, column: list[Any], zero: list[Any]
) -> None:
    assert values(column, kind, nulls="mask") == {"c": [zero], "c__valid": [[True, False]]}
    assert values(column[:1], kind, nulls="mask")["c__valid"] == [[True]]


def test_a_column_that_is_never_null_has_no_mask() -> None:
    schema = pa.schema([pa.field("c", pa.int64(), nullable=False)])
    assert [plan.name for plan in plan_columns(schema, nulls="mask")] == ["c"]


@pytest.mark.parametrize(
    ("kind", "column", "default", "filled"),
    [
        (pa.int32(), [1, None], 7, [1, 7]),
        (pa.float64(), [1.0, None], 0.5, [1.0, 0.5]),
        (pa.bool_(), [False, None], True, [False, True]),
        (pa.string(), ["a", None], "none", ["a", "none"]),
    ],
    ids=str,
)
@pytest.mark.parametrize("nulls", ["error", "mask"])
def test_a_default_stands_for_null_without_a_mask(
    kind: pa.DataType, column: list[Any], default: Any, filled: list[Any], nulls: str
) -> None:
    assert values(column, kind, nulls=nulls, defaults={"c": default}) == {"c": [filled]}


def test_null_arrays_are_empty_or_zero_where_masked() -> None:
    column, kind = [[1, 2], None], pa.list_(pa.int64())
    assert values(column, kind, nulls="mask") == {
        "c": [[1, 2], [0, 2, 2]],
        "c__valid": [[True, False]],
    }
    assert values(column, kind, nulls="mask", shapes={"c": (2,)})["c"] == [[[1, 2], [0, 0]]]
    assert values(column, kind, defaults={"c": 9}, shapes={"c": (2,)})["c"] == [
        [[1, 2], [9, 9]]
    ]


def test_null_elements_follow_their_column() -> None:
    kind = pa.list_(pa.int64())
    with pytest.raises(DataError, match=r"1 NULL in 2 elements"):
        values([[1, None]], kind)
    assert values([[1, None]], kind, defaults={"c": 9})["c"] == [[1, 9], [0, 2]]
    (found, _) = values([[1.0, None]], pa.list_(pa.float64()))["c"]
    assert np.isnan(found[1])


def test_null_arrays_are_an_error_that_counts_rows() -> None:
    with pytest.raises(DataError, match=r"'c' .*1 NULL in 2 values"):
        values([[1.0], None], pa.list_(pa.float64()))


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        (pa.decimal128(5, 2), [Decimal("1.50")]),
        (pa.date32(), [date(2026, 1, 1)]),
        (pa.timestamp("ms"), [datetime(2026, 1, 1)]),  # noqa: DTZ001 - Flink's TIMESTAMP
        (pa.map_(pa.string(), pa.int64()), [[("a", 1)]]),
        (pa.list_(pa.date32()), [[date(2026, 1, 1)]]),
        (pa.list_(pa.list_(pa.int64())), [[[1]]]),
    ],
    ids=str,
)
def test_types_without_a_tensor_are_refused_with_what_to_do(
    kind: pa.DataType, column: list[Any]
) -> None:
    with pytest.raises(ConfigError) as caught:
        planned(column, kind)
    text = str(caught.value)
    for part in ("'c'", "CAST", "columns=[", "ctx.batches()"):
        assert part in text, text


def test_columns_are_chosen_and_ordered_and_others_are_not_looked_at() -> None:
    schema = pa.schema([("a", pa.int64()), ("d", pa.date32()), ("b", pa.string())])
    assert [plan.name for plan in plan_columns(schema, columns=["b", "a"])] == ["b", "a"]


@pytest.mark.parametrize("rule", ["columns", "shapes", "defaults"])
def test_a_name_that_does_not_exist_is_told_with_those_that_do(rule: str) -> None:
    given: dict[str, Any] = {
        "columns": ["x"],
        "shapes": {"x": (1,)},
        "defaults": {"x": 1},
    }
    with pytest.raises(ConfigError, match=r"no column 'x'; the input has \['c'\]"):
        planned([1], pa.int64(), **{rule: given[rule]})


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ({"shapes": {"c": (2,)}}, r"'c', which is int64 and no ARRAY"),
        ({"defaults": {"c": "many"}}, r"defaults\['c'\]='many' is no int64"),
        ({"defaults": {"c": 1.5}}, r"defaults\['c'\]=1.5 is no int64"),
    ],
)
def test_rules_that_do_not_fit_the_type_are_told(rules: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        planned([1], pa.int64(), **rules)


def test_an_array_of_another_length_than_its_shape_is_told() -> None:
    batch, plans = planned([[1, 2], [3]], pa.list_(pa.int64()), shapes={"c": (2,)})
    with pytest.raises(DataError, match=r"'c' has a list of 1 elements.*\(2,\), which is 2"):
        only(plans).read(batch)


def test_a_column_that_has_the_name_of_a_mask_is_told() -> None:
    schema = pa.schema([("c", pa.int64()), ("c__valid", pa.bool_())])
    with pytest.raises(ConfigError, match="adds 'c__valid', and a column has that name"):
        plan_columns(schema, nulls="mask")


def test_a_null_rule_that_is_none_is_told() -> None:
    with pytest.raises(ConfigError, match=r"nulls='drop'\) must be 'error' or 'mask'"):
        planned([1], pa.int64(), nulls="drop")
