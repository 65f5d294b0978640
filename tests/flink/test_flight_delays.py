"""The demo: its SQL against pandas on the same files, and the whole of it on the whole year."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from examples.flight_delays.__main__ import main
from examples.flight_delays.dataset import raw_tables
from examples.flight_delays.features import (
    CODES,
    NUMBERS,
    create_feature_files,
    create_features,
)

from .conftest import MakeEnvironment
from .flights import expected_features, in_order, joined
from .flights_in_sql import assert_scored_in_sql


def test_the_features_are_those_that_pandas_makes_of_the_same_files(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    tables = raw_tables(tmp_path)
    some_days = {"10,29", "10,30", "10,31", "11,1", "11,2"}
    flights = tables["flights"].path
    lines = flights.read_text().splitlines(keepends=True)
    kept = [line for line in lines if ",".join(line.split(",", 3)[1:3]) in some_days]
    flights.write_text("".join(kept))
    expected = expected_features(tables)
    assert len(expected) > 3000
    assert set(expected["month"]) == {10, 11}

    t_env = make_t_env(parallelism=2)
    create_features(t_env, tables)
    names = ["month", *NUMBERS, *CODES, "late_min"]
    assert t_env.from_path("features").get_schema().get_field_names() == names
    create_feature_files(t_env, tmp_path / "features")
    t_env.execute_sql("INSERT INTO feature_files SELECT * FROM features").wait()
    files = sorted((tmp_path / "features").iterdir())
    features = pd.concat([pd.read_csv(file, names=names) for file in files])
    pd.testing.assert_frame_equal(
        in_order(features), in_order(expected[names]), check_dtype=False, atol=2e-4
    )


@pytest.mark.timeout(600)
def test_the_demo_trains_on_every_row_once_an_epoch_and_beats_both_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path)]) == 0, capsys.readouterr()
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    in_pandas = joined(raw_tables(tmp_path / "again"))
    is_training = in_pandas["month"] <= 10
    assert metrics["rows"]["training"] == is_training.sum()
    assert metrics["rows"]["held_out"] == (~is_training).sum()
    assert sorted(metrics["rows"]["by_worker"]) == ["worker-0", "worker-1"]
    assert sum(metrics["rows"]["by_worker"].values()) == is_training.sum()
    errors = metrics["held_out_errors"]
    assert errors["model"]["mae_min"] < 0.97 * errors["linear"]["mae_min"]
    assert errors["model"]["mae_min"] < 0.9 * errors["mean"]["mae_min"]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert "layers.0.weight" in torch.export.load(tmp_path / "model.pt2").state_dict
    assert f"{is_training.sum():,} from SQL" in capsys.readouterr().out
    assert_scored_in_sql(tmp_path, metrics)
