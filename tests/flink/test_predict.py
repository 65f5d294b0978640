"""Trained models score tables and streams in Flink jobs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from pyflink.datastream import DataStream
from pyflink.table import DataTypes, StreamTableEnvironment
from torch import nn

import headrace.pytorch
import headrace.tensorflow
from headrace.errors import ConfigError, PlanError
from headrace.pytorch import PythonModel, TorchModel
from headrace.tensorflow import KerasModel
from tests.waiting import until

from .conftest import MakeEnvironment
from .system import Process, descendants
from .tables import failure_of, rows_of
from .test_operator_ends import RETRIES
from .test_operator_rows import CHECKPOINTS, numbers

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 20_000
Y = {"y": DataTypes.FLOAT()}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layers(x)
        return out


@pytest.fixture
def net(tmp_path: Path) -> TorchModel:
    torch.manual_seed(4)
    torch.save(Net().state_dict(), tmp_path / "net.pt")
    return TorchModel(tmp_path / "net.pt", Net)


def children() -> list[Process]:
    family = descendants(os.getpid())
    return [each for each in family if "headrace.framework" in each.command]


def direct(ids: list[int]) -> list[float]:
    torch.manual_seed(4)
    x = torch.tensor([[n / 7.0, n * 0.5] for n in ids], dtype=torch.float64)
    with torch.inference_mode():
        values: list[float] = Net()(x.to(torch.float32))[:, 0].tolist()
    return values


def features(t_env: StreamTableEnvironment, rows: int = ROWS) -> Any:
    numbers(t_env, rows)
    return t_env.sql_query(
        "SELECT id, id / 7.0e0 AS a, id * 0.5e0 AS b, 'n' || CAST(id AS STRING) AS name "
        "FROM numbers"
    )


def written(t_env: StreamTableEnvironment, table: Any, columns: str, folder: Path) -> list[Any]:
    """Write a table to JSON files; return its rows, those of each file in order."""
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE sink ({columns}) WITH ('connector'='filesystem', "
        f"'path'='{folder.as_uri()}', 'format'='json')"
    )
    table.execute_insert("sink").wait()
    return read(folder)


def read(folder: Path) -> list[Any]:
    """Return the rows of JSON files, those of each file in order."""
    files = sorted(path for path in folder.rglob("*part-*") if path.is_file())
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def test_a_table_is_scored_in_order_and_goes_on_in_sql(
    t_env: StreamTableEnvironment, net: TorchModel, tmp_path: Path
) -> None:
    scored = headrace.pytorch.predict(
        features(t_env), net, inputs=["a", "b"], outputs=Y, keep=["name", "id"]
    )
    t_env.create_temporary_view("scored", scored)
    query = t_env.sql_query("SELECT id, name, y * 2 AS y FROM scored WHERE id > 10")
    found = written(t_env, query, "id BIGINT, name STRING, y FLOAT", tmp_path / "out")
    ids = list(range(11, ROWS + 1))
    assert [row["id"] for row in found] == ids
    assert [row["name"] for row in found] == [f"n{n}" for n in ids]
    assert [row["y"] / 2 for row in found] == pytest.approx(direct(ids), rel=1e-5)


def test_parallel_workers_score_every_row_once_and_each_keeps_its_order(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def factory() -> Any:
        def score(columns: Any) -> Any:
            visible = os.environ["CUDA_VISIBLE_DEVICES"]  # noqa: TID251 - its own
            Path(folder, f"worker-{os.getpid()}").write_text(visible)
            return {"y": columns["id"] * 0.5, "worker": [os.getpid()] * len(columns["id"])}

        return score

    t_env = make_t_env(2)
    numbers(t_env, ROWS)
    scored = headrace.pytorch.predict(
        t_env.from_path("numbers"),
        PythonModel(factory),
        outputs={**Y, "worker": DataTypes.BIGINT()},
        batch_rows=100,
        device="cpu",
    )
    columns = "id BIGINT, y FLOAT, worker BIGINT"
    found = written(t_env, scored, columns, tmp_path / "out")
    assert sorted(row["id"] for row in found) == list(range(1, ROWS + 1))
    assert all(row["y"] == row["id"] * 0.5 for row in found)
    ids_of: dict[int, list[int]] = defaultdict(list)
    for row in found:
        ids_of[row["worker"]].append(row["id"])
    assert [path.read_text() for path in tmp_path.glob("worker-*")] == ["-1", "-1"]
    assert len(ids_of) == 2
    assert all(ids == sorted(ids) for ids in ids_of.values())


def test_a_stream_is_scored_to_a_stream(
    t_env: StreamTableEnvironment, net: TorchModel, tmp_path: Path
) -> None:
    stream = t_env.to_data_stream(features(t_env))
    scored = headrace.pytorch.predict(stream, net, inputs=["a", "b"], outputs=Y, keep=["id"])
    assert isinstance(scored, DataStream)
    table = t_env.from_data_stream(scored)
    found = written(t_env, table, "id BIGINT, y FLOAT", tmp_path / "out")
    ids = list(range(1, ROWS + 1))
    assert [row["id"] for row in found] == ids
    assert [row["y"] for row in found] == pytest.approx(direct(ids), rel=1e-5)


def test_a_killed_worker_is_started_again_and_every_row_is_in_the_output_once(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    died, folder = str(tmp_path / "died"), str(tmp_path)

    def factory() -> Any:
        first = Path(folder, f"first-{os.getpid()}")
        seen: set[Path] = set()

        def score(columns: Any) -> Any:
            if not first.exists():
                first.write_text(str(columns["id"][0]))
            seen.update(path.parent for path in Path(folder).glob("cp/*/chk-*/_metadata"))
            # The file of a checkpoint is there before it counts; that of the next one is not.
            if len(seen) > 1 and not Path(died).exists():
                Path(died).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return columns["id"] * 0.5

        return score

    at = {"execution_checkpointing_dir": (tmp_path / "cp").as_uri()}
    t_env = make_t_env(**CHECKPOINTS, **RETRIES, **at)
    numbers(t_env, ROWS, per_second=2_000)
    scored = headrace.pytorch.predict(
        t_env.from_path("numbers"), PythonModel(factory), outputs=Y, batch_rows=64
    )
    found = written(t_env, scored, "id BIGINT, y FLOAT", tmp_path / "out")
    assert Path(died).exists()
    began = sorted(int(path.read_text()) for path in tmp_path.glob("first-*"))
    assert len(began) == 2
    assert began[0] == 1
    assert began[1] > 1, "it did not go on from a checkpoint"
    assert sorted((row["id"], row["y"]) for row in found) == [
        (n, n * 0.5) for n in range(1, ROWS + 1)
    ]


# Keras 3.15 copies variables in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_model_scores_and_a_bad_row_is_null_with_its_reason(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    import keras

    model = keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")]
    )
    model.save(tmp_path / "sum.keras")
    numbers(t_env, 30)
    rows = t_env.sql_query(
        "SELECT id, id * 1.0e0 AS a, NULLIF(id, 7) * 1.0e0 AS b FROM numbers"
    )
    scored = headrace.tensorflow.predict(
        rows,
        KerasModel(tmp_path / "sum.keras"),
        inputs=["a", "b"],
        outputs=Y,
        keep=["id"],
        on_error="null",
        error_column="why",
    )
    assert rows_of(scored) == [
        (n, None, "b is NULL") if n == 7 else (n, 2.0 * n, None) for n in range(1, 31)
    ]


@pytest.mark.parametrize("is_stream", [False, True])
def test_bad_rows_leave_for_a_side_output_with_all_columns_and_the_reason(
    t_env: StreamTableEnvironment, net: TorchModel, tmp_path: Path, *, is_stream: bool
) -> None:
    numbers(t_env, 1_000)
    rows = t_env.sql_query(
        "SELECT id, id / 7.0e0 AS a, NULLIF(MOD(id, 100), 7) * 0.5e0 AS b, 'n' AS name "
        "FROM numbers"
    )
    scored, rejected = headrace.pytorch.predict(
        t_env.to_data_stream(rows) if is_stream else rows,
        net,
        inputs=["a", "b"],
        outputs={"y": DataTypes.FLOAT().not_null()},
        keep=["id"],
        on_error="side_output",
    )
    if is_stream:
        scored, rejected = map(t_env.from_data_stream, (scored, rejected))
    assert scored.get_schema().get_field_names() == ["id", "y"]
    assert rejected.get_schema().get_field_names() == ["id", "a", "b", "name", "error"]
    statements = t_env.create_statement_set()
    for name, table, columns in (
        ("scored", scored, "id BIGINT, y FLOAT"),
        ("rejected", rejected, "id BIGINT, a DOUBLE, b DOUBLE, name STRING, error STRING"),
    ):
        folder = tmp_path / name
        t_env.execute_sql(
            f"CREATE TEMPORARY TABLE {name} ({columns}) WITH ('connector'='filesystem', "
            f"'path'='{folder.as_uri()}', 'format'='json')"
        )
        statements.add_insert(name, table)
    statements.execute().wait()
    bad = [id_ for id_ in range(1, 1_001) if id_ % 100 == 7]
    assert read(tmp_path / "rejected") == [
        {"id": n, "a": n / 7.0, "b": None, "name": "n", "error": "b is NULL"} for n in bad
    ]
    good = read(tmp_path / "scored")
    assert [row["id"] for row in good] == [n for n in range(1, 1_001) if n not in bad]
    assert all(isinstance(row["y"], float) for row in good)


def test_a_model_that_does_not_fit_fails_the_job_with_both_sides(
    t_env: StreamTableEnvironment, net: TorchModel, tmp_path: Path
) -> None:
    rows = features(t_env, 10)
    told = failure_of(
        headrace.pytorch.predict(rows, net, inputs=["a", "b", "id"], outputs=Y, name="wide")
    )
    assert "called with torch.float32 (2, 3) it raised RuntimeError" in told
    missing = TorchModel(tmp_path / "missing.pt", Net)
    told = failure_of(headrace.pytorch.predict(rows, missing, inputs=["a"], outputs=Y))
    assert f"There is no model at {tmp_path / 'missing.pt'}" in told
    told = failure_of(
        headrace.pytorch.predict(rows, net, inputs=["a", "b"], outputs=Y, device="cuda")
    )
    assert "needs a GPU, and Flink has assigned none to this TaskManager" in told
    until(lambda: not children(), "the end of every process", 10)


def test_a_model_larger_than_memory_is_told_when_it_is_opened(
    t_env: StreamTableEnvironment, net: TorchModel
) -> None:
    def huge() -> nn.Module:
        return nn.Linear(1 << 22, 1 << 22)  # 64 TiB

    rows = features(t_env, 10)
    model = TorchModel(net.path, huge)
    told = failure_of(headrace.pytorch.predict(rows, model, inputs=["a", "b"], outputs=Y))
    assert "you tried to allocate 70368744177664 bytes" in told
    until(lambda: not children(), "the end of every process", 10)


def test_plans_that_cannot_work_are_refused(
    t_env: StreamTableEnvironment, net: TorchModel
) -> None:
    rows = features(t_env, 10)
    with pytest.raises(PlanError, match="there is no column c; the rows have id, a, b, name"):
        headrace.pytorch.predict(rows, net, outputs=Y, keep=["c"])
    with pytest.raises(ConfigError, match=r"\['name'\] are there twice"):
        headrace.pytorch.predict(rows, net, outputs={"name": DataTypes.FLOAT()})
    with pytest.raises(ConfigError, match="name is among them already: give the output"):
        headrace.pytorch.predict(
            rows, net, outputs={"name": DataTypes.FLOAT()}, keep=[], on_error="side_output"
        )
    with pytest.raises(ConfigError, match="must be 'fail', 'null' or 'side_output'"):
        headrace.pytorch.predict(rows, net, outputs=Y, on_error="skip")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match="must be a handle, for example TorchModel"):
        headrace.pytorch.predict(rows, "net.pt", outputs=Y)  # type: ignore[arg-type]
