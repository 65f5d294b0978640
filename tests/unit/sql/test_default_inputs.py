"""What goes into a model of which SQL does not say it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from headrace.inference import TensorSpec
from headrace.sql.inputs import default_inputs

NUMBERS = pa.schema([("a", pa.float32()), ("b", pa.int64())])
NUMBER = pa.schema([("a", pa.float32())])
ARRAY = pa.schema([("a", pa.list_(pa.float32()))])


@pytest.mark.parametrize(
    ("specs", "schema", "inputs"),
    [
        (None, NUMBERS, ["a", "b"]),
        (("x",), NUMBERS, ["a", "b"]),
        (None, NUMBER, ["a"]),
        (None, ARRAY, "a"),
        (("a",), NUMBERS, None),
        (("a", "b"), NUMBERS, None),
    ],
    ids=["matrix", "one input", "one column", "array", "by name", "several"],
)
def test_all_columns_side_by_side_unless_the_model_names_them(
    specs: tuple[str, ...] | None, schema: pa.Schema, inputs: object
) -> None:
    declared = None if specs is None else tuple(TensorSpec(name) for name in specs)
    model: Any = SimpleNamespace(inputs=declared, takes_columns=False)
    assert default_inputs(model, schema) == inputs


def test_a_python_function_gets_all_columns() -> None:
    model: Any = SimpleNamespace(inputs=None, takes_columns=True)
    assert default_inputs(model, NUMBERS) is None


def test_a_model_of_single_numbers_gets_the_column_as_it_is() -> None:
    spec = TensorSpec("x", "float32", (None,))
    model: Any = SimpleNamespace(inputs=(spec,), takes_columns=False)
    assert default_inputs(model, NUMBER) == "a"
