"""Every benchmark runs in its smallest size and writes figures; see benchmarks/README.md."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import pytest

from benchmarks import goodput, recovery

LONG = (
    "hop",
    "tfrecord",
    "checkpoint_pause",
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
        "columns",
        "data_parallel",
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


def test_a_kill_that_two_attempts_follow_has_the_time_of_the_first(tmp_path: Path) -> None:
    """Both have stepped when `benchmarks.goodput` looks; a third has not come so far."""
    for pid, log in (("11", "1.0 1\n2.0 2\n"), ("13", "5.5 2\n"), ("12", "4.5 2\n5.0 3\n")):
        (tmp_path / pid).write_text(log)
    (tmp_path / "14").write_text("6.0")
    assert goodput.first_steps(tmp_path) == {11: 1.0, 12: 4.5, 13: 5.5}
    assert goodput.first_step_behind(tmp_path, {11}) == 4.5


def test_a_recovery_that_two_attempts_follow_ends_with_the_first(tmp_path: Path) -> None:
    """Both have stepped when `benchmarks.recovery` looks; the last one runs."""
    for pid, instant in ((11, 1.0), (13, 4.5), (12, 5.5)):
        (tmp_path / f"step-{pid}").write_text(f"{instant}")
    seen = {11}
    assert recovery._first_mark(tmp_path, seen) == (12, 4.5)
    assert seen == {11, 12, 13}


def test_a_smallest_run_does_not_replace_measured_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module = importlib.import_module("benchmarks.columns")
    with pytest.raises(SystemExit):
        module.main(["--smoke"])
    assert "--smoke needs --results" in capsys.readouterr().err
