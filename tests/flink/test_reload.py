"""A running job goes on with the new version of a model where its path changes."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from pyflink.table import DataTypes, StreamTableEnvironment
from torch import nn

import headrace.pytorch
from headrace.errors import ConfigError
from headrace.pytorch import PythonModel, TorchModel
from tests.waiting import until

from .test_operator_rows import numbers
from .test_predict import written

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 20_000
ROWS_PER_SECOND = 2_000
LOOK_EVERY_S = 0.1


class Factor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = x * self.factor
        return product


def put(path: Path, factor: float | None) -> None:
    """Replace the model as a whole; None breaks it."""
    beside = path.with_suffix(".new")
    if factor is None:
        beside.write_text("not a model")
    else:
        torch.save({"factor": torch.tensor([factor])}, beside)
    beside.replace(path)


def test_versions_take_over_between_batches_and_a_broken_one_does_not(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    path, made = tmp_path / "factor.pt", tmp_path / "made"
    made.mkdir()
    folder = str(made)

    def make() -> nn.Module:
        number = len(list(Path(folder).iterdir()))
        Path(folder, str(number)).touch()
        return Factor()

    def loaded(count: int) -> Callable[[], bool]:
        return lambda: len(list(made.iterdir())) == count

    put(path, 1.0)

    def replace_again_and_again() -> None:
        until(loaded(1), "the load of the first version")
        threading.Event().wait(1)
        put(path, 2.0)
        until(loaded(2), "the load of the second version")
        put(path, None)
        threading.Event().wait(10 * LOOK_EVERY_S)
        put(path, 3.0)
        until(loaded(3), "the load of the third version")

    numbers(t_env, ROWS, per_second=ROWS_PER_SECOND)
    rows = t_env.sql_query("SELECT id, CAST(id AS FLOAT) AS x FROM numbers")
    scored = headrace.pytorch.predict(
        rows,
        TorchModel(path, make),
        outputs={"y": DataTypes.FLOAT()},
        inputs="x",
        keep=["id"],
        reload="path changes",
        reload_every_s=LOOK_EVERY_S,
        version_column="version",
    )
    replacer = threading.Thread(target=replace_again_and_again)
    replacer.start()
    columns = "id BIGINT, y FLOAT, version TIMESTAMP_LTZ(3)"
    found = written(t_env, scored, columns, tmp_path / "out")
    replacer.join()
    assert [row["id"] for row in found] == list(range(1, ROWS + 1))
    factors = [row["y"] / row["id"] for row in found]
    assert [factor for factor, _ in itertools.groupby(factors)] == [1.0, 2.0, 3.0]
    versions: dict[float, set[str]] = {}
    for factor, row in zip(factors, found, strict=True):
        versions.setdefault(factor, set()).add(row["version"])
    assert all(len(each) == 1 for each in versions.values())
    assert len(set.union(*versions.values())) == 3


def test_what_has_no_path_cannot_change(t_env: StreamTableEnvironment) -> None:
    def factory() -> Any:
        return lambda columns: columns["id"]

    numbers(t_env, 3)
    for settings in ({"reload": "path changes"}, {"version_column": "at"}):
        with pytest.raises(ConfigError, match="need a model with a path"):
            headrace.pytorch.predict(
                t_env.from_path("numbers"),
                PythonModel(factory),
                outputs={"y": DataTypes.BIGINT()},
                **settings,  # type: ignore[arg-type]
            )
