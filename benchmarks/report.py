"""What every result file holds besides its figures."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

__all__ = ["spread", "write_result"]

_FOLDER = Path(__file__).parent / "results"
_PACKAGES = ("apache-flink", "torch", "pyarrow", "numpy")


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most of the repeats."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def write_result(name: str, figures: dict[str, Any]) -> Path:
    """Write `results/<name>.json` with the figures, the machine and the commit."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - found on the path
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    document = {
        "commit": commit,
        "machine": {"cores": os.cpu_count(), "architecture": platform.machine()},
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
        **figures,
    }
    _FOLDER.mkdir(exist_ok=True)
    path = _FOLDER / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path
