"""The demo in TensorFlow, on the whole year: two workers, a ps, an evaluator, TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import keras
import pytest

from examples.flight_delays.__main__ import main
from examples.flight_delays.dataset import raw_tables

from .flights import joined
from .flights_in_sql import assert_scored_in_sql


@pytest.mark.long  # as long as the one in PyTorch, and like it but for the framework
@pytest.mark.timeout(600)
def test_it_trains_on_every_row_beats_both_baselines_and_is_watched_meanwhile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--framework", "tensorflow", "--out", str(tmp_path)]) == 0, capsys.readouterr()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    in_pandas = joined(raw_tables(tmp_path / "again"))
    is_training = in_pandas["month"] <= 10
    rows = metrics["rows"]
    assert rows["training"] == is_training.sum()
    assert rows["held_out"] == (~is_training).sum()
    assert sorted(rows["by_worker"]) == ["worker-0", "worker-1"]
    assert sum(rows["by_worker"].values()) == is_training.sum()
    errors = metrics["held_out_errors"]
    assert errors["model"]["mae_min"] < 0.97 * errors["linear"]["mae_min"]
    assert errors["model"]["mae_min"] < 0.9 * errors["mean"]["mae_min"]
    states = {name: node["state"] for name, node in metrics["nodes"].items()}
    ended = {states.pop(name) for name in ("worker-0", "worker-1", "held_out-0")}
    assert ended == {"finished"}
    assert states == dict.fromkeys(("evaluator-0", "ps-0", "tensorboard-0"), "stopped")
    watched = metrics["nodes"]["evaluator-0"]["report"]
    assert watched["step"] >= 50
    assert watched["mae_min"] < errors["mean"]["mae_min"]
    (run,) = (tmp_path / "logs").iterdir()
    assert {"evaluator-0", "worker-0", "worker-1"} <= {each.name for each in run.iterdir()}
    model = keras.models.load_model(tmp_path / "model.keras", compile=False)
    assert {each.name for each in model.inputs} == {"numbers", "codes"}
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert_scored_in_sql(tmp_path, metrics, "--framework", "tensorflow")
