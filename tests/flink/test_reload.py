"""A running job goes on with the new version of a model where its path changes."""

from __future__ import annotations

import itertools
import os
import sys
import threading
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, StreamTableEnvironment
from torch import nn

import headrace.pytorch
from headrace.errors import ConfigError
from headrace.pytorch import PythonModel, TorchModel
from tests.waiting import until

from .tables import failure_of, rows_of
from .test_operator_rows import numbers
from .test_predict import written

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 12_000
ROWS_PER_SECOND = 600
LOOK_EVERY_S = 0.1


class Factor(nn.Module):
    """Multiplies by its parameter; says in `folder` when it is made and what it scores with."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(1))
        self.folder = Path(folder)
        self.folder.joinpath(f"made-{len(list(self.folder.glob('made-*')))}").touch()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.any():  # zeros are only a trial
            self.folder.joinpath(f"scores-{self.factor.item():.0f}").touch()
        product: torch.Tensor = x * self.factor
        return product


def in_ms(text: str) -> int:
    """Return the milliseconds since 1970 of a TIMESTAMP_LTZ in JSON."""
    return round(datetime.fromisoformat(text).timestamp() * 1000)


def stacks() -> str:
    """Return what every thread of the JVM is doing."""
    traces = get_gateway().jvm.java.lang.Thread.getAllStackTraces().values()
    return "".join(str(frame) for trace in traces for frame in trace)


def put(path: Path, factor: float | None) -> None:
    """Replace the model as a whole; None breaks it."""
    beside = path.with_suffix(".new")
    name = "quotient" if factor is None else "factor"
    torch.save({name: torch.tensor([factor or 0.0])}, beside)
    beside.replace(path)


@pytest.mark.parametrize("is_remote", [False, True])
def test_versions_take_over_between_batches_and_a_broken_one_does_not(
    t_env: StreamTableEnvironment, tmp_path: Path, shelf: str, *, is_remote: bool
) -> None:
    path, folder = tmp_path / "factor.pt", tmp_path / "said"
    folder.mkdir()
    stamps: list[int] = []

    def put_and_see(factor: float) -> None:
        put(path, factor)
        stamps.append(path.stat().st_mtime_ns // 1_000_000)
        until(folder.joinpath(f"scores-{factor:.0f}").exists, f"scores of {factor}")

    def replace_again_and_again() -> None:
        put_and_see(1.0)
        put_and_see(2.0)
        path.with_name(f"{path.name}.times-out").touch()  # only the shelf looks at it
        put(path, None)
        until(lambda: len(list(folder.glob("made-*"))) == 3, "the load of the broken version")
        put_and_see(3.0)

    numbers(t_env, ROWS, per_second=ROWS_PER_SECOND)
    rows = t_env.sql_query("SELECT id, CAST(id AS FLOAT) AS x FROM numbers")
    scored = headrace.pytorch.predict(
        rows,
        TorchModel(f"{shelf}{path}" if is_remote else path, partial(Factor, str(folder))),
        outputs={"y": DataTypes.FLOAT()},
        inputs="x",
        keep=["id"],
        reload="path changes",
        reload_every_s=LOOK_EVERY_S,
        version_column="version",
    )
    replacer = threading.Thread(target=replace_again_and_again)
    replacer.start()
    until(path.exists, "the first version")
    columns = "id BIGINT, y FLOAT, version TIMESTAMP_LTZ(3)"
    found = written(t_env, scored, columns, tmp_path / "out")
    replacer.join()
    assert [row["id"] for row in found] == list(range(1, ROWS + 1))
    seen = [(row["y"] / row["id"], in_ms(row["version"])) for row in found]
    runs = [run for run, _ in itertools.groupby(seen)]
    assert runs == list(zip([1.0, 2.0, 3.0], stamps, strict=True))


def test_a_directory_that_only_flink_can_read_is_copied_with_all_its_files(
    t_env: StreamTableEnvironment, tmp_path: Path, shelf: str
) -> None:
    model = tmp_path / "model"
    (model / "parts" / "deep").mkdir(parents=True)
    (model / "first").write_text("2")
    (model / "parts" / "second").write_text("3")
    (model / "parts" / "deep" / "third").write_bytes(b"x" * 200_000)

    def factory(path: Path) -> Any:
        factor = int((path / "first").read_text()) * int((path / "parts/second").read_text())
        length = len((path / "parts/deep/third").read_bytes())
        where = str(path)
        return lambda columns: {
            "y": columns["id"] * factor,
            "length": [length] * len(columns["id"]),
            "path": [where] * len(columns["id"]),
        }

    numbers(t_env, 3)
    scored = headrace.pytorch.predict(
        t_env.from_path("numbers"),
        PythonModel(factory, f"{shelf}{model}/"),
        outputs={
            "y": DataTypes.BIGINT(),
            "length": DataTypes.INT(),
            "path": DataTypes.STRING(),
        },
    )
    found = rows_of(scored)
    assert [row[:3] for row in found] == [(n, 6 * n, 200_000) for n in (1, 2, 3)]
    copy = Path(found[0][3])
    assert copy.name == "model"
    assert copy != model
    assert not copy.exists(), "it goes with the job"


def test_a_model_that_flink_cannot_read_is_an_error_with_its_uri(
    t_env: StreamTableEnvironment, tmp_path: Path, shelf: str
) -> None:
    numbers(t_env, 3)
    rows = t_env.sql_query("SELECT CAST(id AS FLOAT) AS x FROM numbers")
    outputs = {"y": DataTypes.FLOAT()}
    missing = TorchModel(f"{shelf}{tmp_path}/missing.pt", nn.Identity)
    told = failure_of(headrace.pytorch.predict(rows, missing, outputs=outputs, name="a"))
    assert f"{shelf}{tmp_path}/missing.pt cannot be copied to this host: FileNotFound" in told
    unknown = TorchModel("nowhere://models/a.pt", nn.Identity)
    told = failure_of(headrace.pytorch.predict(rows, unknown, outputs=outputs, name="b"))
    assert "nowhere://models/a.pt cannot be copied to this host" in told
    assert "has every TaskManager the file system's plugin" in told


def test_a_job_that_waits_for_a_hanging_file_system_can_be_cancelled(
    t_env: StreamTableEnvironment, tmp_path: Path, shelf: str
) -> None:
    pipe = tmp_path / "model"
    os.mkfifo(pipe)  # opening it for reading waits until somebody writes
    numbers(t_env, 3)
    scored = headrace.pytorch.predict(
        t_env.from_path("numbers"),
        PythonModel(lambda path: None, f"{shelf}{pipe}"),  # type: ignore[arg-type, return-value]
        outputs={"y": DataTypes.BIGINT()},
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE sink (id BIGINT, y BIGINT) WITH ('connector'='blackhole')"
    )
    client = scored.execute_insert("sink").get_job_client()
    assert client is not None
    until(lambda: "FileMirror" in stacks(), "the copying")
    ended = client.get_job_execution_result()
    client.cancel().result()
    until(ended.done, "the end of the job", 20)
    with pipe.open("w") as writer:
        writer.write("late")
    until(lambda: "FileMirror" not in stacks(), "the end of the thread")


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
