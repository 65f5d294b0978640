"""A user's program: numbers from SQL through workers into a sink that writes each once."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from typing import Any

import cloudpickle
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment

from headrace.config import RoleConfig
from headrace.operator import Cluster, JobHandle

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers have no tests


class Sum:
    """What is added up; it has the methods of a state."""

    def __init__(self) -> None:
        self.value = 0

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What to count.

    Attributes:
        results: URI of the directory that gets rows: worker, id; and how many rows that worker
            has had so far, from `ctx.state`, and their sum, from what `ctx.checkpointed` keeps.
        rows: How many numbers, from 1; Flink's generator holds them all on the heap.
        name: Of the job.
        rate: Rows per second.
        workers: How many.
        checkpoints: Whether to make any.
    """

    results: str
    rows: int
    name: str = "count"
    rate: int = 1_000_000
    workers: int = 2
    checkpoints: bool = False

    def submit(self) -> JobHandle:
        """Submit the job to where the environment says."""
        env = StreamExecutionEnvironment.get_execution_environment()
        t_env = StreamTableEnvironment.create(env)
        if self.checkpoints:
            t_env.get_config().set("execution.checkpointing.interval", "500 ms")
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
            "'fields.id.kind'='sequence', 'fields.id.start'='1', "
            f"'fields.id.end'='{self.rows}', 'rows-per-second'='{self.rate}')"
        )
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE results (worker INT, id BIGINT, `count` BIGINT, "
            "total BIGINT) WITH "
            f"('connector'='filesystem', 'path'='{self.results}', 'format'='json', "
            "'sink.rolling-policy.rollover-interval'='1 s', "
            "'sink.rolling-policy.check-interval'='1 s')"
        )
        workers, rows, name = self.workers, self.rows, self.name

        def entry(ctx: Any) -> None:
            print(f"worker {ctx.index} of {name} starts")  # noqa: T201
            ctx.publish(f"rows of {ctx.index}", str(rows))
            for index in range(workers):  # none of another job, under the same key
                assert ctx.lookup(f"rows of {index}", timeout_s=60.0) == str(rows)
            state, total = ctx.state, ctx.checkpointed(total=Sum())
            state.setdefault("rows", 0)
            for batch in ctx.batches(rows=100):
                counts, totals = [], []
                for number in batch["id"].tolist():
                    state["rows"] += 1
                    total.value += number
                    counts.append(state["rows"])
                    totals.append(total.value)
                ctx.report(rows=state["rows"])
                ctx.emit(
                    {
                        "worker": [ctx.index] * len(counts),
                        "id": batch["id"],
                        "count": counts,
                        "total": totals,
                    }
                )

        cluster = Cluster(t_env, name=self.name)
        cluster.add_am_role()
        out = cluster.add_role(
            "worker",
            RoleConfig(entry=entry, parallelism=workers),
            input=t_env.from_path("numbers"),
            output={
                "worker": DataTypes.INT(),
                "id": DataTypes.BIGINT(),
                "count": DataTypes.BIGINT(),
                "total": DataTypes.BIGINT(),
            },
        )
        statements = t_env.create_statement_set()
        statements.add_insert("results", out)
        return cluster.submit(statements)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("results")
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--name", default="count")
    parser.add_argument("--rate", type=int, default=1_000_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--checkpoints", action="store_true")
    parser.add_argument("--jobs", type=int, default=1, help="one after the other")
    parser.add_argument("--detach", action="store_true", help="do not wait for the end")
    options = vars(parser.parse_args())
    jobs, detach, results = (options.pop(name) for name in ("jobs", "detach", "results"))
    for number in range(jobs):
        job = Count(results=f"{results}/{number}", **options).submit()
        if detach:
            print("job", job.job_id)  # noqa: T201
            continue
        status = job.wait(timeout_s=100).status
        summary = {"state": status.state, "rows_in": status.rows_in, "attempt": status.attempt}
        print(json.dumps(summary))  # noqa: T201


if __name__ == "__main__":
    main()
