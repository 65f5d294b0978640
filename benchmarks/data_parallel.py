"""`ctx.data_parallel`, fed with batches, against torch's DDP on the same rows in memory.

Both run in the same two processes, in turns, so that what else the machine does hits both
alike. MLP 784-512-512-10, batch 64, SGD, gloo. The feed is a table (`headrace.testing`), so
this has the reader, the tensors and the common steps, not the memory queue.

Run: ``python -m benchmarks.data_parallel``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from benchmarks import report
from benchmarks.mlp import BATCH_ROWS, CLASSES, WIDTH, build_model, train_step
from headrace.testing import run

_WORKERS = 2


def run_data_parallel(turns: int, steps: int) -> dict[str, Any]:
    """Train in turns; return the lengths of steps and bars.

    Args:
        turns: Turns of each kind that count; one before them warms up.
        steps: Steps in a turn.
    """
    table = _table((turns + 1) * steps * BATCH_ROWS)
    result = run(
        lambda ctx: _compare(ctx, turns, steps),
        table,
        framework="pytorch",
        workers=_WORKERS,
        split=[table] * _WORKERS,
        batch_rows=4096,
    )
    figures = dict(sorted(result.reports[0].items()))
    ratio = figures["fed_over_ddp.median"]
    return {
        "turns": turns,
        "steps_per_turn": steps,
        **figures,
        "bars": {"ctx.data_parallel over DDP in memory": report.at_most(ratio, 1.025)},
    }


def _compare(ctx: Any, turns: int, steps: int) -> None:
    fed_model = build_model()
    fed = torch.optim.SGD(fed_model.parameters(), lr=0.01)
    ctx.data_parallel(fed_model, fed)
    ddp_model = nn.parallel.DistributedDataParallel(build_model())
    ddp = torch.optim.SGD(ddp_model.parameters(), lr=0.01)
    memory = _in_memory(steps * BATCH_ROWS)
    batches = ctx.batches(rows=BATCH_ROWS)
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
        train_step(model, optimizer, batch["x"], batch["y"])


def _in_memory(rows: int) -> Iterator[dict[str, torch.Tensor]]:
    x = torch.randn(rows, WIDTH)
    y = torch.randint(0, CLASSES, (rows,))
    while True:
        for start in range(0, rows, BATCH_ROWS):
            end = start + BATCH_ROWS
            yield {"x": x[start:end], "y": y[start:end]}


def _table(rows: int) -> pa.Table:
    random = np.random.default_rng(0)
    few = random.standard_normal((4096, WIDTH), dtype=np.float32)
    x = few[np.arange(rows) % len(few)].reshape(-1)
    offsets = np.arange(rows + 1, dtype=np.int32) * WIDTH
    lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(x))
    return pa.table({"x": lists, "y": random.integers(0, CLASSES, rows)})


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("data_parallel", arguments)
    turns, steps = (2, 5) if options.smoke else (20, 100)
    figures = run_data_parallel(turns, steps)
    print(report.write_result("data_parallel", figures, options.results).read_text())


if __name__ == "__main__":
    main()
