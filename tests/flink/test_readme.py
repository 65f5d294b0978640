"""The example in the README, run as it stands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from headrace._environ import copy_environment

ROOT = Path(__file__).resolve().parents[2]


def example() -> str:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 1
    return str(blocks[0])


def test_the_example_has_about_thirty_lines() -> None:
    assert 20 <= len(example().splitlines()) <= 36


@pytest.mark.timeout(240)
def test_the_example_trains_on_every_row_and_finds_the_weights(tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(example())
    environment = {**copy_environment(), "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, str(program)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "20000 rows" in done.stdout
    weights = torch.load(tmp_path / "trained" / "model.pt")["weight"]
    assert torch.allclose(weights, torch.tensor([[3.0, -1.0]]), atol=0.05), weights
