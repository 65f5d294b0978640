"""PyTorch training inside Flink jobs; the content of model and rows is checked."""

from __future__ import annotations

import json
import os
import signal
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from pyflink.table import DataTypes, StreamTableEnvironment, Table
from torch import nn

import headrace.pytorch
from headrace.errors import JobFailedError

from .conftest import MakeEnvironment

ROWS = 1003
STEPS = {"step": DataTypes.BIGINT(), "epoch": DataTypes.INT(), "id": DataTypes.BIGINT()}


def features(t_env: StreamTableEnvironment) -> Table:
    """Rows with id, an array x of two features, and a target y."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.id.end'='{ROWS - 1}', 'rows-per-second'='100000000', "
        f"'number-of-rows'='{ROWS}')"  # without it Flink takes the source for unbounded
    )
    return t_env.sql_query(
        "SELECT id, ARRAY[CAST(SIN(id) AS FLOAT), CAST(COS(id) AS FLOAT)] AS x, "
        "CAST(SIN(id) - 2 * COS(id) AS FLOAT) AS y FROM numbers"
    )


def build_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(2, 1)


def train(ctx: Any) -> None:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    ctx.data_parallel(model, optimizer)
    for batch in ctx.batches(rows=64):
        rows = len(batch["id"])
        step = torch.full((rows,), ctx.steps + 1)
        epoch = torch.full((rows,), ctx.epoch, dtype=torch.int32)
        optimizer.zero_grad()
        loss: Any = nn.functional.mse_loss(model(batch["x"]).squeeze(1), batch["y"])
        loss.backward()
        optimizer.step()
        ctx.emit({"step": step, "epoch": epoch, "id": batch["id"]})
        ctx.report(loss=loss.detach(), steps=ctx.steps)
    ctx.save(model)


def replay(rows: list[dict[str, int]]) -> nn.Module:
    """Train one process on the union batch of each step."""
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    ids: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        ids[row["step"]].append(row["id"])
    for step in sorted(ids):
        angle = torch.tensor(ids[step], dtype=torch.float64)
        x = torch.stack([angle.sin(), angle.cos()], dim=1)
        y = angle.sin() - 2 * angle.cos()
        optimizer.zero_grad()
        loss: Any = nn.functional.mse_loss(model(x.float()).squeeze(1), y.float())
        loss.backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("epochs", [1, 2])
def test_two_workers_on_a_stream_equal_one_process_on_the_union(
    make_t_env: MakeEnvironment, tmp_path: Path, epochs: int
) -> None:
    t_env = make_t_env(2)
    plan = headrace.pytorch.train(
        features(t_env),
        train,
        workers=2,
        epochs=epochs,
        output=STEPS,
        output_dir=tmp_path / "model",
        name="union",
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE results (step BIGINT, epoch INT, id BIGINT) WITH "
        f"('connector'='filesystem', 'path'='{(tmp_path / 'out').as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("results", plan.output)
    result = plan.submit(statements).wait(timeout_s=100)

    rows = read_rows(tmp_path / "out")
    for epoch in range(epochs):
        ids = sorted(row["id"] for row in rows if row["epoch"] == epoch)
        assert ids == list(range(ROWS)), f"epoch {epoch}"
    assert result.status.rows_in == ROWS
    saved = torch.load(tmp_path / "model" / "model.pt", weights_only=True)
    for name, value in replay(rows).state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-4, atol=1e-5)


def test_workers_without_rows_train_on_their_own_files(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    make_t_env(1)
    for rank, values in enumerate([[1.0, 2.0, 3.0], [4.0]]):
        torch.save(torch.tensor(values), tmp_path / f"part-{rank}.pt")
    folder = str(tmp_path)

    def train_files(ctx: Any) -> None:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer, loss_reduction="sum")
        for value in torch.load(f"{folder}/part-{ctx.rank}.pt", weights_only=True):
            optimizer.zero_grad()
            loss: Any = model(value.reshape(1, 1)).sum()
            loss.backward()
            optimizer.step()
        ctx.save(model)

    headrace.pytorch.train(
        None, train_files, workers=2, output_dir=tmp_path, name="files"
    ).submit().wait(timeout_s=100)
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert saved["weight"].item() == pytest.approx(-0.1 * (1 + 2 + 3 + 4))


def test_a_group_that_lost_a_worker_goes_on_from_its_checkpoint_in_batch_mode(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    make_t_env(1)
    steps = 6

    def train_values(ctx: Any) -> None:
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        done = 0
        saved = ctx.latest_checkpoint()
        if saved is not None:
            state = torch.load(saved, weights_only=True)
            model.load_state_dict(state["model"])
            done = state["step"]
        ctx.data_parallel(model, optimizer)
        for step in range(done, steps):
            optimizer.zero_grad()
            loss: Any = model(torch.full((1, 1), float(step + 10 * ctx.rank))).sum()
            loss.backward()
            optimizer.step()
            if step == 3 and ctx.rank == 0:
                with ctx.checkpoint_path(step + 1) as path:
                    torch.save({"model": model.state_dict(), "step": step + 1}, path)
            if step == 4 and ctx.rank == 1 and ctx.attempt == 1:
                os.kill(os.getpid(), signal.SIGKILL)
        ctx.save(model)
        ctx.report(attempt=ctx.attempt, done_before=done)

    result = (
        headrace.pytorch.train(
            None,
            train_values,
            workers=2,
            output_dir=tmp_path,
            checkpoint_dir=tmp_path / "checkpoints",
            name="recovers",
        )
        .submit()
        .wait(timeout_s=110)
    )
    weight = torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item()
    assert weight == pytest.approx(-0.1 * sum((2 * step + 10) / 2 for step in range(steps)))
    for node in result.status.nodes.values():
        assert node.report == {"attempt": 2, "done_before": 4, "steps": steps - 4}


def test_an_error_in_a_worker_fails_the_job_with_its_traceback(
    make_t_env: MakeEnvironment,
) -> None:
    t_env = make_t_env(2)

    def fail(ctx: Any) -> None:
        model = build_model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer)
        for batch in ctx.batches(rows=64):
            if ctx.rank == 1:
                divide_by_zero(batch)
            loss: Any = model(batch["x"]).sum()
            loss.backward()
            optimizer.step()

    def divide_by_zero(batch: dict[str, Any]) -> None:
        _ = 1 // (len(batch["id"]) * 0)

    plan = headrace.pytorch.train(features(t_env), fail, workers=2, name="fails")
    with pytest.raises(JobFailedError) as caught:
        plan.submit().wait(timeout_s=100)
    assert "ZeroDivisionError" in str(caught.value)
    assert "in divide_by_zero" in str(caught.value)


def read_rows(path: Path) -> list[dict[str, int]]:
    files = [p for p in path.rglob("part-*") if p.is_file()]
    return [json.loads(line) for p in files for line in p.read_text().splitlines()]
