"""Every benchmark runs in its smallest size and writes figures; see benchmarks/README.md."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest

LONG = (
    "scoring",
    "tf_training",
    "round_trip",
    "scoring_latency",
    "sql_predict",
    "fed_training",
    "tf_dataset",
    "tf_start",
    "epochs",
    "checkpoint_throughput",
    "exports",
    "lifecycle",
    "recovery",
    "rescale",
    "goodput",
    "many_nodes",
    "memory",
)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "script",
    [
        "hop",
        "columns",
        "data_parallel",
        "tfrecord",
        "checkpoint_pause",
        *(pytest.param(script, marks=pytest.mark.long) for script in LONG),
    ],
)
def test_the_smallest_run_of_a_benchmark_writes_its_figures(
    script: str, tmp_path: Path
) -> None:
    module = importlib.import_module(f"benchmarks.{script}")
    module.main(["--smoke", "--results", str(tmp_path)])
    document = json.loads((tmp_path / f"{script}.json").read_text())
    assert document["commit"]
    assert document["bars"], "no figure is held against what was promised"
    for name, bar in document["bars"].items():
        assert math.isfinite(bar["value"]), name
        assert isinstance(bar["is_met"], bool), name


def test_a_smallest_run_does_not_replace_measured_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = importlib.import_module("benchmarks.columns")
    with pytest.raises(SystemExit):
        module.main(["--smoke"])
    assert "--smoke needs --results" in capsys.readouterr().err
