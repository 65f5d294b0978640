"""Which rows go into a model, what comes out, and what is told where the two do not fit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace.errors import ConfigError, DataError
from headrace.exchange import MemoryFeed
from headrace.inference import PythonModel, ScoringEntry, ScoringSettings
from tests.unit.role.doubles import FakeLink, spec_in

from .scoring import score

FLOAT = pa.float32()


def rows(count: int = 10) -> pa.Table:
    return pa.table(
        {
            "id": np.arange(count),
            "a": np.arange(count, dtype=np.float32),
            "b": np.arange(count, dtype=np.float64) * 10,
            "name": [f"n{n}" for n in range(count)],
            "points": pa.array(
                np.arange(2.0 * count).reshape(count, 2).tolist(), pa.list_(pa.float64())
            ),
        }
    )


def model(function: Any) -> PythonModel:
    return PythonModel(lambda: function)


def add(a: Any, b: Any) -> Any:
    return a + b


@pytest.mark.parametrize(
    ("inputs", "function"),
    [
        pytest.param("a", lambda a: a, id="a-column"),
        pytest.param(["a", "id"], lambda matrix: matrix[:, 1], id="a-matrix"),
        pytest.param(("a", ["b"]), lambda a, b: a + 0 * b[:, 0], id="two-by-position"),
        pytest.param({"x": "a", "y": "b"}, lambda y, x: x + 0 * y, id="two-by-name"),
        pytest.param(lambda c: c["a"] * 1, lambda a: a, id="a-function"),
        pytest.param(lambda c: (c["a"], c["b"]), lambda a, b: a, id="a-function-of-two"),
        pytest.param(lambda c: {"x": c["a"]}, lambda x: x, id="a-function-by-name"),
        pytest.param(None, lambda columns: columns["a"], id="all-columns"),
        pytest.param("points", lambda p: p[:, 0] / 2, id="arrays"),
    ],
)
def test_columns_go_into_the_model_as_inputs_says(inputs: Any, function: Any) -> None:
    scored = score(rows(), model(function), {"y": FLOAT}, inputs=inputs)
    assert scored["y"].to_pylist() == [float(n) for n in range(10)]
    assert scored.drop_columns("y").equals(rows())


def test_a_matrix_is_float32_row_after_row() -> None:
    seen = []

    def look(matrix: Any) -> Any:
        seen.append(matrix)
        return matrix[:, 0]

    score(rows(3), model(look), {"y": FLOAT}, inputs=["b", "id"])
    (matrix,) = seen
    assert matrix.dtype == np.float32
    assert matrix.flags.c_contiguous
    assert matrix.tolist() == [[0, 0], [10, 1], [20, 2]]


@pytest.mark.parametrize(
    ("returned", "outputs", "expected"),
    [
        (lambda a: a[:, None], {"y": FLOAT}, {"y": [0, 1, 2]}),
        (lambda a: (a, -a), {"y": FLOAT, "z": FLOAT}, {"y": [0, 1, 2], "z": [0, -1, -2]}),
        (lambda a: {"z": -a, "y": a, "w": a}, {"y": FLOAT, "z": FLOAT}, {"z": [0, -1, -2]}),
        (lambda a: {"any": a}, {"y": FLOAT}, {"y": [0, 1, 2]}),
        (
            lambda a: np.stack([a, a], 1),
            {"y": pa.list_(FLOAT)},
            {"y": [[0, 0], [1, 1], [2, 2]]},
        ),
        (lambda a: a[:, None], {"y": pa.list_(FLOAT)}, {"y": [[0], [1], [2]]}),
        (lambda a: [f"{x:.0f}" for x in a], {"y": pa.string()}, {"y": ["0", "1", "2"]}),
    ],
)
def test_what_the_model_returns_becomes_the_outputs(
    returned: Any, outputs: dict[str, pa.DataType], expected: dict[str, list[Any]]
) -> None:
    if outputs["y"] == pa.string():
        returned = _in_tuple(returned)
    scored = score(rows(3), model(returned), outputs, inputs="a")
    for name, values in expected.items():
        assert scored[name].to_pylist() == values


def _in_tuple(function: Any) -> Any:
    return lambda a: (function(a),)


def test_postprocess_sees_the_columns_too() -> None:
    def best(returned: Any, columns: Mapping[str, Any]) -> Any:
        return {"y": returned * 2, "label": columns["name"]}

    scored = score(
        rows(3),
        model(lambda a: a),
        {"label": pa.string(), "y": FLOAT},
        inputs="a",
        postprocess=best,
        keep=["id"],
    )
    assert scored.to_pydict() == {
        "id": [0, 1, 2],
        "label": ["n0", "n1", "n2"],
        "y": [0.0, 2.0, 4.0],
    }


def test_batches_are_never_larger_and_take_what_is_there() -> None:
    sizes = []

    def count(a: Any) -> Any:
        sizes.append(len(a))
        return a

    for receive_rows in (3, 4096):
        scored = score(
            rows(10),
            model(count),
            {"y": FLOAT},
            inputs="a",
            batch_rows=4,
            receive_rows=receive_rows,
        )
        assert scored["id"].to_pylist() == list(range(10))
    assert max(sizes) == 4
    assert sum(sizes) == 20


def with_null(column: str, *places: int) -> pa.Table:
    table = rows()
    values = table[column].to_pylist()
    for place in places:
        values[place] = None
    index = table.schema.get_field_index(column)
    return table.set_column(index, column, pa.array(values, table.schema.field(column).type))


@pytest.mark.parametrize("column", ["a", "id"])
def test_null_that_goes_into_the_model_is_an_error_with_its_column(column: str) -> None:
    with pytest.raises(DataError, match=f"(?s){column!r} has 2 NULL in 10 rows.*COALESCE"):
        score(with_null(column, 2, 5), model(add), {"y": FLOAT}, inputs=(column, "b"))


def test_null_in_a_column_that_passes_by_is_none() -> None:
    scored = score(with_null("name", 1), model(add), {"y": FLOAT}, inputs=("a", "b"))
    assert scored["name"].null_count == 1
    assert scored["y"].null_count == 0


def test_rows_that_cannot_be_scored_are_null_with_a_reason_and_keep_their_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = []
    reports: list[dict[str, float]] = []

    def picky(a: Any, b: Any) -> Any:
        calls.append(len(a))
        if (a == 7).any():
            msg = "seven"
            raise ValueError(msg)
        return a + b

    scored = score(
        with_null("a", 2, 3),
        model(picky),
        {"y": FLOAT},
        inputs=("a", "b"),
        on_error="null",
        error_column="why",
        receive_rows=5,
        batch_rows=5,
        reports=reports,
    )
    assert reports[-1] == {"rows_without_scores": 3.0}
    told = [each.getMessage() for each in caplog.records]
    assert told == ["A row cannot be scored, the first of this worker: a is NULL"]
    expected = [11.0 * n for n in range(10)]
    assert scored["id"].to_pylist() == list(range(10))
    assert scored["y"].to_pylist() == [
        None if n in (2, 3, 7) else y for n, y in enumerate(expected)
    ]
    assert [why for why in scored["why"].to_pylist() if why] == [
        "a is NULL",
        "a is NULL",
        "ValueError: seven",
    ]
    assert scored["why"].to_pylist()[7] == "ValueError: seven"
    assert len(calls) < 8  # halves, not single rows


def test_a_batch_that_is_too_large_for_the_model_is_scored_in_halves() -> None:
    reports: list[dict[str, float]] = []

    def small(a: Any) -> Any:
        if len(a) > 5:
            msg = "too large"
            raise ValueError(msg)
        return a * 2

    scored = score(
        rows(),
        model(small),
        {"y": FLOAT},
        inputs="a",
        on_error="null",
        error_column="why",
        reports=reports,
    )
    assert scored["y"].to_pylist() == [2.0 * n for n in range(10)]
    assert scored["why"].null_count == 10
    assert not any("rows_without_scores" in values for values in reports)


def test_a_batch_without_any_row_that_can_be_scored_is_all_null() -> None:
    def fail(a: Any) -> Any:
        raise ValueError

    scored = score(
        rows(3),
        model(fail),
        {"y": pa.list_(FLOAT)},
        inputs="a",
        on_error="null",
        error_column="why",
    )
    assert scored["y"].null_count == 3
    assert scored["why"].to_pylist() == ["ValueError: "] * 3


def test_an_error_of_the_model_fails_the_job_with_its_own_traceback() -> None:
    def fail(a: Any) -> Any:
        msg = "mine"
        raise KeyError(msg)

    with pytest.raises(KeyError, match="mine"):
        score(rows(), model(fail), {"y": FLOAT}, inputs="a")


@pytest.mark.parametrize(
    ("returned", "told"),
    [
        (lambda a: a[:3], r"'y' of the model is float32 \(3,\) for 10 rows"),
        (lambda a: (a, a), r"returns 2 outputs \(float32 \(10,\), .*declares 1 \(y\)"),
        (lambda a: {"u": a, "v": a}, r"outputs u, v, and y of `outputs` are not"),
        (lambda a: a.sum(), r"'y' of the model is float32 \(\) for 10 rows"),
        (lambda a: None, r"'y' of the model is a NoneType for 10 rows"),
    ],
)
@pytest.mark.parametrize("on_error", ["fail", "null"])
def test_outputs_that_would_fit_no_row_fail_the_job(
    returned: Any, told: str, on_error: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        score(rows(), model(returned), {"y": FLOAT}, inputs="a", on_error=on_error)


def test_a_value_that_does_not_fit_its_output_is_told() -> None:
    told = r"'y' has shape \(10, 2\).*one list per row"
    with pytest.raises(DataError, match=told):
        score(rows(), model(lambda a: np.stack([a, a], 1)), {"y": FLOAT}, inputs="a")


def test_a_list_is_one_output_unless_it_is_one_of_tensors() -> None:
    for count in (2, 3):  # as many rows as outputs, and not
        scored = score(
            rows(count), model(lambda a: [a, -a]), {"y": FLOAT, "z": FLOAT}, inputs="a"
        )
        assert scored["z"].to_pylist() == [-float(n) for n in range(count)]
        scored = score(rows(count), model(lambda a: a.tolist()), {"y": FLOAT}, inputs="a")
        assert scored["y"].to_pylist() == [float(n) for n in range(count)]
    with pytest.raises(ConfigError, match="returns 1 outputs"):
        score(
            rows(2),
            model(lambda a: [[1.0, 10.0], [2.0, 20.0]]),
            {"y": FLOAT, "z": FLOAT},
            inputs="a",
        )


def points(*values: Any) -> pa.Table:
    return pa.table(
        {"id": range(len(values)), "points": pa.array(values, pa.list_(pa.float32()))}
    )


def test_a_null_element_of_an_array_is_an_error_of_its_row() -> None:
    table = points([1.0, 2.0], [3.0, None], None, [5.0, 6.0])
    first = model(lambda p: p[:, 0])
    with pytest.raises(DataError, match="'points' has 2 NULL in 4 rows"):
        score(table, first, {"y": FLOAT}, inputs="points")
    scored = score(
        table, first, {"y": FLOAT}, inputs="points", on_error="null", error_column="why"
    )
    assert scored["y"].to_pylist() == [1.0, None, None, 5.0]
    assert scored["why"].to_pylist() == [
        None,
        "points has a NULL element",
        "points is NULL",
        None,
    ]


def test_arrays_of_several_lengths_are_told() -> None:
    with pytest.raises(DataError, match=r"'points' has arrays of the lengths \[1, 2\]"):
        score(
            points([1.0, 2.0], [3.0]), model(lambda p: p[:, 0]), {"y": FLOAT}, inputs="points"
        )


def test_null_is_not_put_into_an_output_that_is_not_null() -> None:
    entry = ScoringEntry(
        model(lambda a: a),
        ScoringSettings(kept=(), outputs=("y",), inputs="a", on_error="null"),
    )
    feed = MemoryFeed.of_table(
        rows(), output_schema=pa.schema([pa.field("y", FLOAT, nullable=False)])
    )
    with pytest.raises(ConfigError, match="y of `outputs` is declared NOT NULL"):
        entry.open_context(spec_in(Path()), FakeLink(), feed=feed)


@pytest.mark.parametrize(
    ("inputs", "told"),
    [
        ("c", "no column 'c'; the rows have id, a, b"),
        (["a", "name"], r"column 'name' \(string\) is among .* is no number"),
        ([], r"must be the name of a column, or a list"),
        ((), r"names no column"),
        ({}, r"names no column"),
        (3, r"3 must be the name"),
        ({"x": ["a", 1]}, r"must be the name"),
    ],
)
def test_inputs_that_cannot_be_are_refused(inputs: Any, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        score(rows(), model(add), {"y": FLOAT}, inputs=inputs)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kept": ("a", "y")}, r"\['y'\] are there twice"),
        ({"on_error": "skip"}, "must be 'fail' or 'null'"),
        ({"error_column": "why"}, "would always be NULL"),
        ({"batch_rows": 0}, "batch_rows"),
        ({"threads": 0}, "threads"),
        ({"reload": "always"}, "must be None or 'path changes'"),
        ({"reload_every_s": 0}, "a number of seconds above 0"),
        ({"version_column": "y"}, r"\['y'\] are there twice"),
        ({"outputs": ()}, "names no column"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        ScoringSettings(**{"kept": ("a",), "outputs": ("y",), **settings})


@pytest.mark.parametrize("factory", [None, lambda: 3])
def test_a_python_model_without_a_function_is_refused(factory: Any) -> None:
    with pytest.raises(ConfigError, match="PythonModel"):
        score(rows(), PythonModel(factory), {"y": FLOAT}, inputs="a")


def test_a_python_model_with_a_path_is_made_of_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "factor"
    path.write_text("3")
    stamp_ms = path.stat().st_mtime_ns // 1_000_000

    def factory(path: Path) -> Any:
        factor = float(path.read_text())
        return lambda a: a * factor

    made = PythonModel(factory, path)
    scored = score(rows(3), made, {"y": FLOAT}, inputs="a", version_column="at")
    assert scored["y"].to_pylist() == [0.0, 3.0, 6.0]
    assert scored["at"].cast(pa.int64()).to_pylist() == [stamp_ms] * 3
    with pytest.raises(ConfigError, match=f"no model at {tmp_path / 'other'} on this host"):
        score(rows(3), PythonModel(factory, tmp_path / "other"), {"y": FLOAT}, inputs="a")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("/models/a.pt", "/models/a.pt"),
        ("file:///models/a%20b.pt", "/models/a b.pt"),
        ("s3://bucket/models/a.pt", "s3://bucket/models/a.pt"),
        (Path("/models"), "/models"),
        ("a.pt", str(Path.cwd() / "a.pt")),
    ],
)
def test_a_path_is_of_this_host_or_a_uri_for_flink(given: str | Path, kept: str) -> None:
    assert PythonModel(lambda path: None, given).path == kept  # type: ignore[arg-type, return-value]


def test_a_local_uri_with_a_host_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"names the host 'models': write file:///"):
        PythonModel(lambda path: None, "file://models/a.pt")  # type: ignore[arg-type, return-value]
