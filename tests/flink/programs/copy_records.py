"""A user's program: copies TFRecord files, through a role if asked for, with a column more."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment

from headrace.config import RoleConfig
from headrace.operator import Cluster
from headrace.tensorflow import tfrecord


def pass_on(ctx: Any) -> None:
    for batch in ctx.batches(rows=100):
        ctx.emit({"id": batch["id"]})


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--parallelism", type=int, default=1)
    parser.add_argument("--role", action="store_true")
    options = parser.parse_args()
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(options.parallelism)
    t_env = StreamTableEnvironment.create(env)
    rows = tfrecord.read(t_env, options.source, {"id": DataTypes.BIGINT()})
    if options.role:
        config = RoleConfig(entry=pass_on, parallelism=options.parallelism)
        cluster = Cluster(t_env, name="copy")
        cluster.add_am_role()
        rows = cluster.add_role("worker", config, input=rows, output={"id": DataTypes.BIGINT()})
    copies = rows.add_columns((rows.id % 10).alias("digit"))
    writing = tfrecord.write(copies, options.target)
    if options.role:
        statements = t_env.create_statement_set().add(writing)
        cluster.submit(statements).wait(timeout_s=100)
    else:
        writing.execute().wait()


if __name__ == "__main__":
    main()
