"""`ctx.data_parallel`, fed with batches, against torch's DDP on the same rows in memory.

Both run in the same two processes, in turns, so that what else the machine does hits both
alike. MLP 784-512-512-10, batch 64, SGD, gloo. The feed is a table (`headrace.testing`), so
this has the reader, the tensors and the common steps, not the memory queue.

Run: ``python -m benchmarks.data_parallel``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from benchmarks.report import write_result
from headrace.testing import run

_WIDTH = 784
_CLASSES = 10
_BATCH_ROWS = 64
_WORKERS = 2


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_parallel")
    parser.add_argument(
        "--turns", type=int, default=20, help="turns of each kind (default: 20)"
    )
    parser.add_argument("--steps", type=int, default=100, help="steps in a turn (default: 100)")
    options = parser.parse_args()
    steps = (options.turns + 1) * options.steps  # the first turn warms up
    table = _table(steps * _BATCH_ROWS)
    result = run(
        lambda ctx: _compare(ctx, options.turns, options.steps),
        table,
        workers=_WORKERS,
        split=[table] * _WORKERS,
        batch_rows=4096,
    )
    figures = {
        "turns": options.turns,
        "steps_per_turn": options.steps,
        **dict(sorted(result.reports[0].items())),
    }
    print(write_result("data_parallel", figures).read_text())


def _compare(ctx: Any, turns: int, steps: int) -> None:
    fed_model = _model()
    fed = torch.optim.SGD(fed_model.parameters(), lr=0.01)
    ctx.data_parallel(fed_model, fed)
    ddp_model = nn.parallel.DistributedDataParallel(_model())
    ddp = torch.optim.SGD(ddp_model.parameters(), lr=0.01)
    memory = _in_memory(steps * _BATCH_ROWS)
    batches = ctx.batches(rows=_BATCH_ROWS)
    seconds: dict[str, list[float]] = {"fed": [], "ddp": []}
    cpu: dict[str, list[float]] = {"fed": [], "ddp": []}
    for _ in range(turns + 1):
        turn: dict[str, Callable[[], None]] = {
            "fed": lambda: _train(fed_model, fed, batches, steps),
            "ddp": lambda: _train(ddp_model, ddp, memory, steps),
        }
        for name, train in turn.items():
            dist.barrier()
            begin, cpu_begin = time.perf_counter(), time.process_time()
            train()
            seconds[name].append((time.perf_counter() - begin) / steps)
            cpu[name].append((time.process_time() - cpu_begin) / steps)
    for name in seconds:
        times = [1e6 * each for each in seconds[name][1:]]
        ctx.report(**{f"{name}.step_us.median": statistics.median(times)})
        ctx.report(**{f"{name}.step_us.least": min(times)})
        ctx.report(**{f"{name}.cpu_us.median": 1e6 * statistics.median(cpu[name][1:])})
    ratios = [f / d for f, d in zip(seconds["fed"][1:], seconds["ddp"][1:], strict=True)]
    ctx.report(**{"fed_over_ddp.median": statistics.median(ratios)})


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


def _table(rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    few = random.standard_normal((4096, _WIDTH), dtype=np.float32)
    x = few[np.arange(rows) % len(few)].reshape(-1)
    offsets = np.arange(rows + 1, dtype=np.int32) * _WIDTH
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(x))
    return pa.table({"x": lists, "y": random.integers(0, _CLASSES, rows)})


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
