"""The examples in README and guides, run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headrace._environ import copy_environment

ROOT = Path(__file__).resolve().parents[2]


def example(document: str = "README.md") -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def run_example(text: str, folder: Path) -> str:
    program = folder / "example.py"
    program.write_text(text)
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=folder,
        env={**copy_environment(), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_example_has_about_thirty_lines() -> None:
    assert 20 <= len(example().splitlines()) <= 36


@pytest.mark.timeout(240)
def test_the_example_trains_on_every_row_and_finds_the_weights(tmp_path: Path) -> None:
    assert "20000 rows" in run_example(example(), tmp_path)
    weights = torch.load(tmp_path / "trained" / "model.pt")["weight"]
    assert torch.allclose(weights, torch.tensor([[3.0, -1.0]]), atol=0.05), weights


@pytest.mark.timeout(240)
def test_the_example_of_roles_keeps_the_rows_that_one_role_wants_of_the_other(
    tmp_path: Path,
) -> None:
    printed = run_example(example("docs/guide/roles.md"), tmp_path)
    assert "4 rows" in printed
    assert sorted(re.findall(r"\+I\[.*?\]", printed)) == ["+I[5, 0.5]", "+I[9, 0.9]"]


@pytest.mark.timeout(240)
def test_the_example_of_record_files_reads_what_it_has_written(tmp_path: Path) -> None:
    printed = run_example(example("docs/guide/tfrecord.md"), tmp_path)
    rows = [re.findall(r"[^|\s]+", line) for line in printed.splitlines() if "+I" in line]
    assert rows == [
        ["+I", "1", "12.5", "<NULL>"],
        ["+I", "2", "-3.0", "<NULL>"],
        ["+I", "-6.0"],
    ]
