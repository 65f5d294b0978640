"""The age of single rows at 1,000 rows/s that an MLP scores, from record to score.

16 FLOAT columns through `predict` with a TorchScript model of 16-256-256-1, one thread; source
and probe read the clock of one JVM, as in `benchmarks.round_trip`.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from pyflink.table import DataTypes, Table

from benchmarks import report
from benchmarks.ages import ages_ms
from benchmarks.java_probe import build_probe_jar
from benchmarks.pipelines import float_columns
from benchmarks.scored_models import save_model
from headrace.pytorch import TorchModel, predict

_NUMBERS = float_columns(16)
_NAMES = [column.name for column in _NUMBERS]


def run_scoring_latency(*, rows: int, repeats: int) -> dict[str, Any]:
    """Measure; return figures and bars.

    Args:
        rows: Rows of a run, of whose second half the ages count: a second for each thousand,
            and the process must have started within the first half.
        repeats: Runs.
    """
    ages: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="headrace-latency-") as folder:
        jar = build_probe_jar(Path(folder))
        scored = partial(_scored, save_model("mlp", Path(folder)))
        for repeat in range(repeats):
            for name, age_ms in ages_ms(scored, _NUMBERS, rows, jar).items():
                print(f"repeat {repeat}: age {name}: {age_ms:.3f} ms", flush=True)
                ages.setdefault(name, []).append(age_ms)
    spreads = {name: report.spread(values) for name, values in ages.items()}
    return {
        "rows": rows,
        "repeats": repeats,
        "age_ms_at_1000_rows_per_s": spreads,
        "bars": {
            "single row, p50 in ms": report.at_most(spreads["p50"]["median"], 2.0),
            "single row, p99 in ms": report.at_most(spreads["p99"]["median"], 10.0),
        },
    }


def _scored(model: Path, table: Table) -> Table:
    scored: Table = predict(
        table,
        TorchModel(model),
        inputs=_NAMES,
        outputs={"y": DataTypes.FLOAT()},
        keep=["id"],
        threads=1,
    )
    return scored


def main(arguments: list[str] | None = None) -> None:
    """Measure and write scoring_latency.json."""
    options = report.parse_options("scoring_latency", arguments)
    if options.smoke:
        figures = run_scoring_latency(rows=500, repeats=1)
    else:
        figures = run_scoring_latency(rows=20_000, repeats=5)
    print(report.write_result("scoring_latency", figures, options.results).read_text())


if __name__ == "__main__":
    main()
