"""SQL files, as `python -m headrace.sql` runs them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.errors import PlanError
from headrace.operator.script import run_script

MODE = "SET 'execution.runtime-mode' = 'BATCH';"
NUMBERS = """
    CREATE TEMPORARY TABLE numbers (n BIGINT) WITH ('connector' = 'datagen',
        'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '10',
        'number-of-rows' = '10');
"""


def run(folder: Path, text: str) -> None:
    path = folder / "statements.sql"
    path.write_text(text)
    run_script(path)


def test_a_file_chooses_batch_mode_in_which_sums_come_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sink = f"'connector' = 'filesystem', 'path' = '{out}', 'format' = 'json'"
    run(
        tmp_path,
        f"""-- a comment; before it
        {MODE}
        SET 'parallelism.default' = '1';
        {NUMBERS}
        CREATE TEMPORARY TABLE sums (total BIGINT) WITH ({sink});
        INSERT INTO sums SELECT SUM(n)
            FROM numbers /*+ OPTIONS('number-of-rows' = '4') */ WHERE n > 1;""",
    )
    (line,) = "".join(path.read_text() for path in out.iterdir()).splitlines()
    assert json.loads(line) == {"total": 9}


def test_the_mode_is_refused_behind_another_statement(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"must come before any other statement") as caught:
        run(tmp_path, f"{NUMBERS} {MODE}")
    assert "statements.sql, statement 2:\nSET" in str(caught.value)


def test_options_with_which_there_is_no_environment_are_told(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"statements.sql: there can be no environment with"):
        run(tmp_path, f"{MODE.replace('BATCH', 'NIGHT')} {NUMBERS}")
