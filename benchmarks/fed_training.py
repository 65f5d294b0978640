"""Training fed by a Flink job, against torchrun on tensors in memory.

MLP 784-512-512-10, batch 64, SGD, gloo, two workers with one thread each, several epochs over
the same number of rows. In each repeat, one after the other: `torchrun --nproc-per-node=2` with
torch's DDP and all rows in memory, and a Flink job that makes the rows and feeds two workers
with `ctx.data_parallel`. Starts and the first steps do not count; everything behind them does,
Flink's own work for the rows and the pauses between epochs included. `data_parallel.py` has the
same without Flink, in turns in the same processes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import headrace.pytorch
from benchmarks import mlp, report
from benchmarks.pipelines import Column, open_t_env, rows_of

_WORKERS = 2
_LIMIT_S = 300.0
_ROOT = Path(__file__).resolve().parents[1]


def run_fed_training(*, steps: int, epochs: int, warm_up_steps: int, repeats: int) -> Any:
    """Train in turns; return the mean steps and bars.

    Args:
        steps: Steps of an epoch.
        epochs: Passes over the rows.
        warm_up_steps: Steps of the first epoch that do not count.
        repeats: Turns of each.
    """
    rows = steps * mlp.BATCH_ROWS * _WORKERS
    turns: dict[str, list[dict[str, float]]] = {"torchrun": [], "fed": []}
    for repeat in range(repeats):
        turns["torchrun"].append(_in_memory_us(rows, epochs, warm_up_steps))
        turns["fed"].append(_fed_us(rows, epochs, warm_up_steps))
        for kind, taken in turns.items():
            print(f"repeat {repeat}: {kind}: {taken[-1]}", flush=True)
    spreads = {
        kind: {key: report.spread([turn[key] for turn in taken]) for key in taken[0]}
        for kind, taken in turns.items()
    }
    ratios = [
        fed["all"] / memory["all"]
        for fed, memory in zip(turns["fed"], turns["torchrun"], strict=True)
    ]
    ratio = report.spread(ratios)
    return {
        "rows": rows,
        "epochs": epochs,
        "repeats": repeats,
        "step_us": spreads,
        "fed_over_torchrun": ratio,
        "bars": {
            "fed training over torchrun in memory": report.at_most(ratio["median"], 1.025)
        },
    }


def _in_memory_us(rows: int, epochs: int, warm_up_steps: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="headrace-torchrun-") as folder:
        result = Path(folder) / "steps.json"
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        torchrun += [f"--nproc-per-node={_WORKERS}", "-m", "benchmarks.in_memory"]
        arguments = [str(rows), str(epochs), str(warm_up_steps), str(result)]
        subprocess.run([*torchrun, *arguments], cwd=_ROOT, check=True, timeout=_LIMIT_S)
        means: dict[str, float] = json.loads(result.read_text())
    return means


def _fed_us(rows: int, epochs: int, warm_up_steps: int) -> dict[str, float]:
    t_env = open_t_env(_WORKERS)
    values = ", ".join(f"CAST(id AS FLOAT) * {_scale(i, rows)}" for i in range(mlp.WIDTH))
    columns = [
        Column(name="x", type="ARRAY<FLOAT>", expression=f"ARRAY[{values}]"),
        Column(name="y", type="BIGINT", expression=f"CAST(MOD(id, {mlp.CLASSES}) AS BIGINT)"),
    ]
    plan = headrace.pytorch.train(
        rows_of(t_env, columns, rows),
        partial(mlp.train_fed, warm_up_steps=warm_up_steps),
        workers=_WORKERS,
        epochs=epochs,
        environment={"OMP_NUM_THREADS": "1"},  # as torchrun sets it
        idle_after_s=_LIMIT_S,  # a slow source makes no shadow steps
        name="fed-training",
    )
    result = plan.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
    means = dict(result.status.nodes["worker-0"].report)
    assert means.pop("steps") == epochs * rows / mlp.BATCH_ROWS / _WORKERS, means
    return means


def _scale(index: int, rows: int) -> str:
    """SQL for a factor that takes an id to between 0 and 1."""
    return f"CAST({(index % 17 + 1) / 17 / rows:.3e} AS FLOAT)"


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("fed_training", arguments)
    if options.smoke:
        figures = run_fed_training(steps=10, epochs=2, warm_up_steps=2, repeats=1)
    else:
        figures = run_fed_training(steps=468, epochs=3, warm_up_steps=50, repeats=4)
    print(report.write_result("fed_training", figures, options.results).read_text())


if __name__ == "__main__":
    main()
