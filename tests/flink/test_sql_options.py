"""What cannot work is refused while a table program is planned, in words of its options."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from pyflink.table import StreamTableEnvironment

from headrace.operator.failure import cause_text

from .sql_models import create_model, write_module
from .tables import values
from .test_sql_models import scored

GOOD = {"framework": "python", "factory": "user_models:halves"}


def refusal(t_env: StreamTableEnvironment, columns: str = "id") -> str:
    with pytest.raises(Exception, match=r".") as caught:
        scored(t_env, columns=columns).explain()
    return cause_text(caught.value)


@pytest.fixture
def rows(t_env: StreamTableEnvironment) -> StreamTableEnvironment:
    columns = {"id": "BIGINT", "n": "INT", "d": "DECIMAL(5, 2)"}
    t_env.create_temporary_view("numbers", values(t_env, columns, "1, 1, 1"))
    return t_env


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"facotry": "x:y"}, r"Unsupported options:\s+facotry\s+Supported options:\s+batch"),
        ({"framework": "jax"}, r"Invalid value for option 'framework'.*PYTORCH, TENSORFLOW"),
        ({"batch-rows": "many"}, r"Invalid value for option 'batch-rows'.*many"),
        ({"linger": "soon"}, r"Invalid value for option 'linger'"),
        ({"batch-rows": "0"}, r"batch_rows=0 must be a whole number of at least 1"),
        ({"factory": "no_such:f"}, rf"by {sys.executable}: .* 'no_such'.*python.files"),
        ({"python.executable": "/no/py"}, r"/no/py -m .* cannot be started.*executable'"),
        ({"planning-timeout": "1 ms"}, r"not answered within 1 ms .*'planning-timeout'"),
        ({"linger": "10 micro"}, r"'linger' = '10000 ns' would become 0 ms"),
        ({"reload-every": "999 micro"}, r"'reload-every' = '999000 ns' would become 0 ms"),
        ({"reload-every": "0 s"}, r"'reload-every' is 0 ms and must be at least 1 ms"),
        ({"device": "tpu"}, r"Invalid value for option 'device'.*AUTO, CPU, CUDA"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_options_of_a_model_that_cannot_work(
    rows: StreamTableEnvironment, tmp_path: Path, options: dict[str, str], text: str
) -> None:
    chosen = {**GOOD, **write_module(tmp_path), **options}
    create_model(rows, "m", "id BIGINT", "half DOUBLE", chosen)
    told = refusal(rows)
    assert re.search(text, told, re.DOTALL), told


def test_a_framework_is_required(rows: StreamTableEnvironment) -> None:
    create_model(rows, "m", "id BIGINT", "half DOUBLE", {"path": "/m.pt"})
    told = refusal(rows)
    assert re.search(r"required options are missing.*framework", told, re.DOTALL), told


def test_columns_of_another_type_are_refused_where_flink_would_not_convert_them(
    rows: StreamTableEnvironment, tmp_path: Path
) -> None:
    create_model(rows, "m", "id BIGINT", "half DOUBLE", {**GOOD, **write_module(tmp_path)})
    assert "half" in scored(rows).explain()
    assert (
        "Column 1 of the DESCRIPTOR is INT NOT NULL, and the INPUT column id of model m is "
        "BIGINT. Flink does not convert it: write CAST(... AS BIGINT) in the query."
    ) in refusal(rows, "n")
    assert "cannot be assigned to model input type BIGINT" in refusal(rows, "d")


def test_columns_that_no_error_or_version_fits_into_are_refused(
    rows: StreamTableEnvironment, tmp_path: Path
) -> None:
    options = {**GOOD, **write_module(tmp_path), "path": "/m"}
    wrong = {"on-error": "null", "error-column": "why", **options}
    create_model(rows, "m", "id BIGINT", "half DOUBLE, why CHAR(5)", wrong)
    assert "'error-column' = 'why' must be a STRING column of the OUTPUT" in refusal(rows)
    rows.execute_sql("DROP MODEL m")
    wrong = {"version-column": "version", **options}
    create_model(rows, "m", "id BIGINT", "half DOUBLE, version TIMESTAMP_LTZ(0)", wrong)
    assert "'version' must be a TIMESTAMP_LTZ(3) column of the OUTPUT" in refusal(rows)


def test_columns_that_no_process_can_take_are_refused(
    rows: StreamTableEnvironment, tmp_path: Path
) -> None:
    options = {**GOOD, **write_module(tmp_path)}
    create_model(rows, "m", "id BIGINT", "half VARIANT", options)
    told = refusal(rows)
    assert "Column `half` has type VARIANT, which cannot travel to the process" in told, told
