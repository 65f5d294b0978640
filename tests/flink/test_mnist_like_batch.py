"""The batch example."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from examples.mnist_like_batch import main


def test_two_workers_with_files_of_their_own_learn_to_read_digits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    rows = re.findall(r"'(worker-\d)': (\d+)", said)
    assert sorted(name for name, _ in rows) == ["worker-0", "worker-1"]
    assert sum(int(count) for _, count in rows) == 1797 - 360
    accuracy = re.search(r"held-out accuracy: ([\d.]+)% of 360", said)
    assert accuracy is not None
    assert float(accuracy[1]) > 95
