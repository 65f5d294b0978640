"""A user's program: a training whose state is in Flink's checkpoints, on the given cluster.

`python -m tests.flink.programs.keep`: Flink's configuration says where that is. It trains
slowly until a file `go` is in its folder, and takes the orders of `ordeal.hinder` there. Prints
attempt, reports and hosts as JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path

import cloudpickle
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import StreamTableEnvironment

from headrace.config import TimeoutConfig
from tests.faults.chaos.jobs import Case, Places, submit
from tests.faults.flink.ordeal import hinder
from tests.flink import training_jobs

HEARTBEAT_EVERY_S = 0.5


def open_environment(
    options: Mapping[str, str], *, parallelism: int = 1
) -> StreamTableEnvironment:
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(parallelism)
    t_env = StreamTableEnvironment.create(env)
    for key, value in options.items():
        t_env.get_config().set(key, value)
    return t_env


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="on all hosts: model, rows, checkpoints")
    parser.add_argument("framework", choices=["pytorch", "tensorflow"])
    parser.add_argument("--name", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--heartbeat-timeout", type=float, default=10.0)
    parser.add_argument("--gather-timeout", type=float, default=120.0)
    parser.add_argument("--limit", type=float, default=500.0, help="seconds until its end")
    options = parser.parse_args()
    for module in (training_jobs, sys.modules[__name__]):  # the workers have no tests
        cloudpickle.register_pickle_by_value(module)
    job = submit(
        Case(options.framework, 2, options.rows, 100_000),
        Places(options.folder),
        name=options.name,
        timeouts=TimeoutConfig(
            gather_timeout_s=options.gather_timeout,
            heartbeat_every_s=HEARTBEAT_EVERY_S,
            heartbeat_timeout_s=options.heartbeat_timeout,
            master_lost_timeout_s=options.heartbeat_timeout,
        ),
        on_step=hinder(str(options.folder), None),
        make=open_environment,
        sink=training_jobs.add_rolling_sink,
    )
    status = job.wait(timeout_s=options.limit).status
    nodes = status.nodes.items()
    summary = {
        "attempt": status.attempt,
        "reports": {name: dict(node.report) for name, node in nodes},
        "hosts": {name: node.host for name, node in nodes},
    }
    print(json.dumps(summary))  # noqa: T201


if __name__ == "__main__":
    main()
