"""A user's program: two PyTorch workers train together, and tell which rows each step had."""

from __future__ import annotations

import argparse
import functools
import json
import threading
from collections import defaultdict
from typing import Any

import torch
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment
from torch import nn

import headrace.pytorch
from headrace.config import TimeoutConfig

STEPS = {"step": DataTypes.BIGINT(), "id": DataTypes.BIGINT()}


def build_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Linear(2, 1)


def train(ctx: Any, name: str, pause_s: float) -> None:
    model = build_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    ctx.data_parallel(model, optimizer)
    for batch in ctx.batches(rows=64):
        step = torch.full((len(batch["id"]),), ctx.steps + 1)
        optimizer.zero_grad()
        loss: Any = nn.functional.mse_loss(model(batch["x"]).squeeze(1), batch["y"])
        loss.backward()
        optimizer.step()
        ctx.emit({"step": step, "id": batch["id"]})
        ctx.report(steps=ctx.steps)
        threading.Event().wait(pause_s)
        if ctx.steps == 3:
            print(f"{name} attempt {ctx.attempt} is training")  # noqa: T201
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results", help="URI of the directory that gets rows: step, id")
    parser.add_argument("model", help="directory that gets the model")
    parser.add_argument("--name", default="train")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds after each step")
    parser.add_argument("--heartbeat-timeout", type=float, default=10.0)
    options = parser.parse_args()
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(2)
    t_env = StreamTableEnvironment.create(env)
    t_env.get_config().set("restart-strategy.type", "fixed-delay")
    t_env.get_config().set("restart-strategy.fixed-delay.attempts", "10")
    t_env.get_config().set("restart-strategy.fixed-delay.delay", "1 s")
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.id.end'='{options.rows - 1}', 'rows-per-second'='100000000')"
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE results (step BIGINT, id BIGINT) WITH "
        f"('connector'='filesystem', 'path'='{options.results}', 'format'='json')"
    )
    features = t_env.sql_query(
        "SELECT id, ARRAY[CAST(SIN(id) AS FLOAT), CAST(COS(id) AS FLOAT)] AS x, "
        "CAST(SIN(id) - 2 * COS(id) AS FLOAT) AS y FROM numbers"
    )
    plan = headrace.pytorch.train(
        features,
        functools.partial(train, name=options.name, pause_s=options.pause),
        workers=2,
        output=STEPS,
        output_dir=options.model,
        name=options.name,
        timeouts=TimeoutConfig(
            heartbeat_every_s=0.5,
            heartbeat_timeout_s=options.heartbeat_timeout,
            master_lost_timeout_s=options.heartbeat_timeout,
        ),
    )
    statements = t_env.create_statement_set()
    statements.add_insert("results", plan.output)
    result = plan.submit(statements).wait()
    status = result.status
    hosts = {name: node.host for name, node in status.nodes.items()}
    summary = {"rows_in": status.rows_in, "attempt": status.attempt, "hosts": hosts}
    print(json.dumps(summary))  # noqa: T201


if __name__ == "__main__":
    main()
