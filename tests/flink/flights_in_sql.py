"""The second half of the demo: the trained model scores in SQL, and the plot of that."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from examples.flight_delays import score

__all__ = ["assert_scored_in_sql"]


def assert_scored_in_sql(out: Path, metrics: Mapping[str, Any], *options: str) -> None:
    """Score with the model in `out` and look at the predictions, by file and in the picture."""
    assert score.main(["--out", str(out), *options]) == 0
    files = [path for path in (out / "predictions").rglob("part-*") if path.stat().st_size]
    names = ["departure_h", "late_min", "predicted_min"]
    table = pd.concat([pd.read_csv(path, names=names) for path in files])
    assert len(table) == metrics["rows"]["held_out"]
    assert table["departure_h"].between(0, 24).all()
    off_min = (table["predicted_min"] - table["late_min"]).abs().mean()
    assert off_min == pytest.approx(metrics["held_out_errors"]["model"]["mae_min"], abs=1e-3)
    plot = [sys.executable, "-m", "examples.flight_delays.plot_by_hour", str(out)]
    printed = subprocess.run(plot, check=True, capture_output=True, text=True).stdout
    assert len(re.findall(r"^\d+ ", printed, re.M)) >= 15, printed
    assert (out / "by_hour.png").read_bytes().startswith(b"\x89PNG")
