"""What the scripts have in common: options, spread of repeats, bars, the result file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from statistics import median, quantiles
from typing import Any

__all__ = [
    "RESULTS",
    "at_least",
    "at_most",
    "parse_options",
    "percentiles",
    "spread",
    "write_result",
]

RESULTS = Path(__file__).parent / "results"
_PACKAGES = ("apache-flink", "torch", "tensorflow-cpu", "keras", "pyarrow", "numpy")


def parse_options(script: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the options that every script takes.

    Args:
        script: Name of the module, `benchmarks.<script>`.
        arguments: Command line without the program; None takes this program's.

    Returns:
        `smoke` (bool): the smallest sizes, to see that the script works; and `results`, the
        folder to write into.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{script}")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="smallest sizes: shows that the script works; its figures mean nothing",
    )
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder for the result file"
    )
    options = parser.parse_args(arguments)
    if options.smoke and options.results == RESULTS:
        parser.error("--smoke needs --results: its figures must not replace measured ones")
    return options


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most of the repeats."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def percentiles(values: list[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the greatest of the repeats."""
    p95 = quantiles(values, n=20, method="inclusive")[18] if len(values) > 1 else values[0]
    return {"p50": median(values), "p95": p95, "max": max(values), "repeats": len(values)}


def at_least(value: float, bar: float) -> dict[str, Any]:
    """Return a figure beside its bar: what it must reach."""
    return {"value": value, "bar": f">= {bar:g}", "is_met": value >= bar}


def at_most(value: float, bar: float) -> dict[str, Any]:
    """Return a figure beside its bar: what it must not exceed."""
    return {"value": value, "bar": f"<= {bar:g}", "is_met": value <= bar}


def write_result(name: str, figures: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>.json` with the figures, the machine and the commit.

    Args:
        name: Name of the script.
        figures: What was measured. `bars` in it maps what was promised to `at_least` or
            `at_most`.
        folder: Where to write.
    """
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],  # noqa: S607 - found on the path
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    document = {
        "commit": commit,
        "machine": {
            "cores": os.cpu_count(),
            "architecture": platform.machine(),
            "load_1_min": round(os.getloadavg()[0], 2),
        },
        "python": platform.python_version(),
        "packages": {package: version(package) for package in _PACKAGES},
        **figures,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    return path
