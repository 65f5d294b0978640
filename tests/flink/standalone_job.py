"""A user's program for the standalone cluster: SQL, four workers, a file of results."""

from __future__ import annotations

import json
import sys
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment

from headrace.config import AMConfig, RoleConfig
from headrace.operator import Cluster


def main(results: str, rows: int) -> None:
    env = StreamExecutionEnvironment.get_execution_environment()
    t_env = StreamTableEnvironment.create(env)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='1', "
        f"'fields.id.end'='{rows}', 'rows-per-second'='100000000')"
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE results (worker INT, n BIGINT, total BIGINT) WITH "
        f"('connector'='filesystem', 'path'='{results}', 'format'='json')"
    )

    def entry(ctx: Any) -> None:
        print("worker", ctx.index, "starts")  # noqa: T201
        rows = total = 0
        for batch in ctx.batches(rows=1000):
            rows += len(batch["id"])
            total += int(batch["id"].sum())
            ctx.report(rows=rows)
        ctx.emit({"worker": [ctx.index], "n": [rows], "total": [total]})

    cluster = Cluster(t_env, name="standalone")
    cluster.add_am_role(AMConfig())
    out = cluster.add_role(
        "worker",
        RoleConfig(entry=entry, parallelism=4),
        input=t_env.from_path("numbers"),
        output={
            "worker": DataTypes.INT(),
            "n": DataTypes.BIGINT(),
            "total": DataTypes.BIGINT(),
        },
    )
    statements = t_env.create_statement_set()
    statements.add_insert("results", out)
    result = cluster.submit(statements).wait(timeout_s=100)
    print(json.dumps({"state": result.status.state, "rows_in": result.status.rows_in}))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
