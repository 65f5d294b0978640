"""A user's program: a training in one worker or two, as many as there are slots for.

`python -m tests.flink.programs.elastic FOLDER`: Flink's configuration says where. It trains
slowly until a file `go` is in the folder. Prints attempt and reports as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from threading import Event
from typing import Any

import cloudpickle

import headrace.pytorch
from headrace.config import ExchangeConfig
from tests.flink import training_jobs
from tests.flink.programs.keep import open_environment
from tests.flink.training_jobs import STEPS, add_rolling_sink, trainer

_LIMIT_S = 300.0


def note(folder: str) -> Any:
    """Return what a worker does after each step: it says so, and is slow."""

    def after_batch(ctx: Any) -> None:
        name = f"{ctx.attempt}.{ctx.rank}-of-{ctx.world_size}"
        Path(folder, "steps", name).touch()
        if not Path(folder, "go").exists():
            Event().wait(0.1)

    return after_batch


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="on all hosts: model, rows, checkpoints")
    parser.add_argument("--name", required=True)
    parser.add_argument("--rows", type=int, required=True)
    options = parser.parse_args()
    folder = options.folder
    (folder / "steps").mkdir(parents=True)
    for module in (training_jobs, sys.modules[__name__]):  # the workers have no tests
        cloudpickle.register_pickle_by_value(module)
    flink = {
        "execution.checkpointing.interval": "500 ms",
        "execution.checkpointing.dir": (folder / "checkpoints").as_uri(),
    }
    t_env = open_environment(flink, parallelism=2)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT, padding STRING) WITH "
        "('connector'='datagen', 'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.id.end'='{options.rows - 1}', 'fields.padding.length'='1000', "
        f"'number-of-rows'='{options.rows}', 'scan.parallelism'='1')"
    )
    rows = t_env.sql_query(
        "SELECT id, ARRAY[CAST(MOD(id, 7) AS DOUBLE) / 8, CAST(MOD(id, 11) AS DOUBLE) / 16] AS "
        "x, CAST(MOD(id, 13) AS DOUBLE) / 32 AS y, padding FROM numbers"
    )
    plan = headrace.pytorch.train(
        rows,
        trainer(rows=16, keeps=True, after_batch=note(str(folder))),
        workers=(1, 2),
        exchange=ExchangeConfig(batch_rows=16, slots=2),
        output=STEPS,
        output_dir=folder,
        name=options.name,
    )
    add_rolling_sink(t_env, plan, folder / "out")
    status = plan.submit().wait(timeout_s=_LIMIT_S).status
    reports = {name: dict(node.report) for name, node in status.nodes.items()}
    print(json.dumps({"attempt": status.attempt, "reports": reports}))  # noqa: T201


if __name__ == "__main__":
    main()
