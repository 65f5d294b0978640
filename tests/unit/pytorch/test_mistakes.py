"""What users get wrong is told; what only looks wrong is in recipes.py."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.data import DataLoader

from headrace.config import TimeoutConfig
from headrace.errors import ConfigError, DataError, PlanError, UserCodeError
from headrace.pytorch.lone_step import LoneStep
from tests.unit.pytorch.training import build_model, build_table, run, train_step

pytestmark = pytest.mark.timeout(120)
LIMITS = TimeoutConfig(collective_timeout_s=60.0, gather_timeout_s=60.0)


def test_an_output_dir_that_cannot_be_written_is_told_before_any_training(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    begun: list[bool] = []
    with pytest.raises(ConfigError, match=r"output_dir=.*Nothing was trained") as caught:
        run(lambda _: begun.append(True), output_dir=tmp_path / "file" / "models")
    assert begun == []
    assert "Not a directory" in str(caught.value)


@pytest.mark.parametrize("rows", [0, -1, True, 1.5, "8", None])
def test_rows_of_a_batch_that_are_no_count_are_told(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"rows=.* must be a whole number of at least 1"):
        run(lambda ctx: ctx.batches(rows=rows), build_table(4))


@pytest.mark.parametrize("rows", [0, True, 1.5, "8", None])
def test_rows_of_a_step_that_are_no_count_are_told(rows: Any) -> None:
    with pytest.raises(ConfigError, match=r"rows=.* must be a whole number of at least 1"):
        run(lambda ctx: ctx.step_rows(rows), build_table(4))


def test_a_numpy_count_is_a_count() -> None:
    seen: list[int] = []

    def train(ctx: Any) -> None:
        size = next(iter(ctx.batches(rows=2)))["id"].numpy()[1] + 1
        seen.extend(len(batch["id"]) for batch in ctx.batches(rows=size))

    run(train, build_table(6))
    assert seen == [2, 2]


@pytest.mark.parametrize("kind", ["ddp", "sync"])
def test_a_model_that_communicates_by_itself_is_refused(kind: str) -> None:
    def train(ctx: Any) -> None:
        model: nn.Module
        if kind == "ddp":
            model = nn.parallel.DistributedDataParallel(nn.Linear(1, 1))
        else:
            model = nn.Sequential(nn.Linear(1, 1), nn.SyncBatchNorm(1))
        ctx.data_parallel(model, torch.optim.SGD(model.parameters(), lr=0.1))

    told = {"ddp": "the model that it wraps", "sync": r"its part '1' is a SyncBatchNorm"}
    with pytest.raises(ConfigError, match=told[kind]):
        run(train)


def plain_training(ctx: Any) -> None:
    """A loop whose author has not heard of ctx.data_parallel."""
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in ctx.batches(rows=4):
        train_step(model, optimizer, batch)


def plain_training_with_another_hook(ctx: Any) -> None:
    register_optimizer_step_pre_hook(lambda *_: None)  # as profilers do
    plain_training(ctx)


def test_forgetting_data_parallel_is_told_at_the_first_step(
    capfd: pytest.CaptureFixture[str],
) -> None:
    run(
        plain_training_with_another_hook,
        build_table(16),
        workers=2,
        batch_rows=4,
        timeouts=LIMITS,
        timeout_s=90.0,
    )
    out = capfd.readouterr().out
    for worker in (0, 1):
        lines = [line for line in out.splitlines() if f"worker-{worker}: An optimizer" in line]
        assert len(lines) == 1
        assert "each of the 2 workers trains a model of its own" in lines[0]


def test_one_worker_need_not_say_data_parallel(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        run(plain_training, build_table(16))
    assert caplog.records == []


def test_only_the_optimizer_state_of_rank_0_is_an_error_and_other_ranks_do_not_save(
    tmp_path: Path,
) -> None:
    def train(ctx: Any) -> None:
        model = build_model()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        path = ctx.save(torch.tensor(ctx.rank), "rank.pt")
        if ctx.rank == 1:
            ctx.save(model, "other.pt")
        assert path.name == "rank.pt"
        if ctx.rank == 0:
            train_step(model, optimizer, {"x": torch.ones(2, 3), "y": torch.ones(2)})
        ctx.data_parallel(model, optimizer)

    with pytest.raises(UserCodeError, match="the workers' optimizers differ"):
        run(train, workers=2, output_dir=tmp_path, timeouts=LIMITS, timeout_s=90.0)
    assert [each.name for each in tmp_path.iterdir()] == ["rank.pt"]
    assert torch.load(tmp_path / "rank.pt", weights_only=True) == 0


def test_an_exception_in_a_collate_function_arrives_with_its_place() -> None:
    def stack_badly(rows: list[dict[str, Any]]) -> Any:
        return torch.stack([row["x"] for row in rows] + [torch.zeros(1)])

    def train(ctx: Any) -> None:
        for _ in DataLoader(ctx.dataset(), batch_size=2, collate_fn=stack_badly):
            pass

    with pytest.raises(RuntimeError, match="stack expects each tensor") as caught:
        run(train, build_table(4))
    assert "stack_badly" in [entry.name for entry in caught.traceback]


@pytest.mark.parametrize("batch_size", [None, 2])
def test_loader_processes_are_refused(batch_size: int | None) -> None:
    def train(ctx: Any) -> None:
        dataset = ctx.dataset(rows=2) if batch_size is None else ctx.dataset()
        batches: Any = iter(DataLoader(dataset, batch_size=batch_size, num_workers=2))
        try:
            next(batches)
        finally:
            batches._shutdown_workers()

    with pytest.raises(Exception, match="num_workers=0"):
        run(train, build_table(4))


def test_text_and_null_columns_reach_a_loader_that_groups_rows() -> None:
    table = pa.table(
        {
            "name": ["a", "b", "ö"],
            "size": pa.array([1.0, None, 3.0], pa.float32()),
            "count": pa.array([1, 2, None], pa.int64()),
        }
    )
    seen: list[Any] = []

    def train(ctx: Any) -> None:
        loader: Any = DataLoader(ctx.dataset(nulls="mask"), batch_size=2)
        seen.extend(loader)

    run(train, table)
    assert [batch["name"] for batch in seen] == [["a", "b"], ["ö"]]
    assert seen[0]["size"].isnan().tolist() == [False, True]
    assert [batch["count__valid"].tolist() for batch in seen] == [[True, True], [False]]

    with pytest.raises(DataError, match="'count'"):
        run(lambda ctx: list(DataLoader(ctx.dataset(), batch_size=2)), table)


def test_a_restored_job_does_not_train_without_data_parallel_either() -> None:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    is_reading = False
    look = LoneStep(lambda: is_reading)
    look.open(workers=1, is_restored=True)
    optimizer.step()  # on other data
    is_reading = True
    for _ in range(2):
        with pytest.raises(PlanError, match="restored from a Flink checkpoint"):
            optimizer.step()
    look.allow_restored()
    optimizer.step()
