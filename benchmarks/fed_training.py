"""Training fed by a Flink job, against torch's DDP on the same tensors in memory.

Both train in the same two workers of one job, in turns, so that what else the machine does hits
both alike. While DDP has its turn, Flink is held by back-pressure; the queue is small against a
turn. MLP 784-512-512-10, batch 64, SGD, gloo, one core for each worker. Flink's own work for
the rows counts, as it runs on the same cores.

Run: ``python -m benchmarks.fed_training``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.distributed as dist
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment, Table
from torch import nn

import headrace.pytorch
from benchmarks.report import spread, write_result
from headrace.config import ExchangeConfig

_WIDTH = 784
_CLASSES = 10
_BATCH_ROWS = 64
_WORKERS = 2
_SPARE = 1.05  # rows that nobody trains on, so that none of the turns runs dry


def main() -> None:
    """Run the job and write the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fed_training")
    parser.add_argument("--turns", type=int, default=8, help="turns of each kind (default: 8)")
    parser.add_argument("--steps", type=int, default=200, help="steps in a turn (default: 200)")
    options = parser.parse_args()
    turns, steps = options.turns, options.steps
    rows = int(_SPARE * (turns + 1) * steps * _BATCH_ROWS * _WORKERS)
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(_WORKERS)
    job = headrace.pytorch.train(
        _rows(StreamTableEnvironment.create(env), rows),
        lambda ctx: _compare(ctx, turns, steps),
        workers=_WORKERS,
        name="fed-training",
        exchange=ExchangeConfig(batch_rows=256, slots=2, slot_bytes=1 << 20),
    )
    report = job.submit().wait().status.nodes["worker-0"].report
    times = {
        kind: [report[f"{kind}.{turn}"] for turn in range(turns)] for kind in ("fed", "ddp")
    }
    ratios = [f / d for f, d in zip(times["fed"], times["ddp"], strict=True)]
    figures = {
        "rows": rows,
        "steps_per_turn": steps,
        "fed_step_us": spread(times["fed"]),
        "ddp_step_us": spread(times["ddp"]),
        "fed_over_ddp": spread(ratios),
        "turns": times,
    }
    print(write_result("fed_training", figures).read_text())


def _rows(t_env: StreamTableEnvironment, rows: int) -> Table:
    """A bounded table with an array of `_WIDTH` floats and a label."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='1', "
        f"'fields.id.end'='{rows}', 'number-of-rows'='{rows}', "
        "'rows-per-second'='100000000')"
    )
    values = ", ".join(f"CAST({i % 17 / 17:.3e} AS FLOAT)" for i in range(_WIDTH))
    label = f"CAST(MOD(id, {_CLASSES}) AS BIGINT)"
    return t_env.sql_query(f"SELECT ARRAY[{values}] AS x, {label} AS y FROM numbers")  # noqa: S608


def _compare(ctx: Any, turns: int, steps: int) -> None:
    fed_model = _model()
    fed = torch.optim.SGD(fed_model.parameters(), lr=0.01)
    ctx.data_parallel(fed_model, fed)
    ddp_model = nn.parallel.DistributedDataParallel(_model())
    ddp = torch.optim.SGD(ddp_model.parameters(), lr=0.01)
    batches = ctx.batches(rows=_BATCH_ROWS)
    memory = _in_memory(100 * _BATCH_ROWS)
    kinds: dict[str, Callable[[], None]] = {
        "fed": lambda: _train(fed_model, fed, batches, steps),
        "ddp": lambda: _train(ddp_model, ddp, memory, steps),
    }
    for turn in range(-1, turns):  # the first turn of each warms up
        for kind, train in kinds.items():
            dist.barrier()
            begin = time.perf_counter()
            train()
            step_us = (time.perf_counter() - begin) / steps * 1e6
            if turn >= 0:
                ctx.report(**{f"{kind}.{turn}": step_us})
    ctx.join()


def _train(model: nn.Module, optimizer: Any, batches: Iterator[Any], steps: int) -> None:
    for _ in range(steps):
        batch = next(batches)
        optimizer.zero_grad()
        loss: Any = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        loss.backward()
        optimizer.step()


def _in_memory(rows: int) -> Iterator[dict[str, torch.Tensor]]:
    x = torch.randn(rows, _WIDTH)
    y = torch.randint(0, _CLASSES, (rows,))
    while True:
        for start in range(0, rows, _BATCH_ROWS):
            end = start + _BATCH_ROWS
            yield {"x": x[start:end], "y": y[start:end]}


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(_WIDTH, 512),
        nn.ReLU(),
        nn.Linear(512, 512),
        nn.ReLU(),
        nn.Linear(512, _CLASSES),
    )


if __name__ == "__main__":
    main()
