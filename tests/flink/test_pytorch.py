"""PyTorch training on a table, as Flink deals it; the content of model and rows is checked."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import torch
from pyflink.table import DataTypes, StreamTableEnvironment, Table
from torch import nn

import headrace.pytorch

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


def read_rows(path: Path) -> list[dict[str, int]]:
    files = [p for p in path.rglob("part-*") if p.is_file()]
    return [json.loads(line) for p in files for line in p.read_text().splitlines()]
