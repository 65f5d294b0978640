"""Which columns a training needs of a table, and what is told of those that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from headrace.errors import ConfigError, PlanError
from headrace.estimator.columns import needed_columns

TYPES = {"id": "BIGINT", "a": "DOUBLE", "b": "INT", "x": "ARRAY<FLOAT>", "t": "VARCHAR"}
PRICE = {**TYPES, "price": "DECIMAL(10, 2)"}


@pytest.mark.parametrize(
    ("features", "label", "needed"),
    [
        (["a", "b"], "x", ["a", "b", "x"]),
        ("x", "a", ["a", "x"]),
        (("x", ["b", "id"]), ["a"], ["id", "a", "b", "x"]),
        ({"words": "t", "n": ["a"]}, ["b", "a"], ["a", "b", "t"]),
        (["a"], "a", ["a"]),
        (lambda columns: columns["a"], "b", [*TYPES]),
        (None, "b", [*TYPES]),
    ],
)
def test_a_training_reads_the_columns_that_are_named_and_all_where_none_is(
    features: Any, label: Any, needed: list[str]
) -> None:
    assert needed_columns(features, label, TYPES) == needed


@pytest.mark.parametrize(
    ("features", "label", "told"),
    [
        (["a", "c"], "b", r"features: there is no column 'c'; the table has id, a, b, x, t"),
        ("c", "b", r"features: there is no column 'c'"),
        ({"n": "c"}, "b", r"features: there is no column 'c'"),
        (["a"], "y", r"label: there is no column 'y'; the table has"),
        (["a", "t"], "b", r"features: column 't' is VARCHAR, .*one matrix of numbers. CAST"),
        (["a"], ["b", "x"], r"label: column 'x' is ARRAY<FLOAT>, .*or name it alone"),
        (["a"], "t", r"label: column 't' is VARCHAR, which is no number. CAST it"),
        (["price"], "a", r"features: column 'price' is DECIMAL\(10, 2\)"),
    ],
)
def test_columns_that_are_missing_or_no_numbers_are_told_before_anything_runs(
    features: Any, label: Any, told: str
) -> None:
    with pytest.raises(PlanError, match=told):
        needed_columns(features, label, PRICE if "price" in features else TYPES)


@pytest.mark.parametrize("label", [None, [], [1], 7])
def test_a_label_is_a_name_or_a_list_of_names(label: Any) -> None:
    with pytest.raises(ConfigError, match=r"label=.* must be the name of a column, or a list"):
        needed_columns(["a"], label, TYPES)
