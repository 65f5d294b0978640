"""A job of Flink alone, on the given cluster: rows of `keep.py` that nobody looks at.

`python -m tests.flink.programs.plain`: the source, the options and the parallelism of that
training, and a sink that discards. Ends when the job is submitted.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.faults.chaos.jobs import OPTIONS, Case, Places, add_rows
from tests.flink.programs.keep import open_environment


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, help="on all hosts: checkpoints")
    parser.add_argument("--name", required=True)
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--rows-per-s", type=int, required=True)
    options = parser.parse_args()
    case = Case("pytorch", 2, options.rows, options.rows_per_s)
    more = {
        "execution.checkpointing.dir": Places(options.folder).checkpoints.as_uri(),
        "pipeline.name": options.name,
    }
    t_env = open_environment({**OPTIONS, **more}, parallelism=case.workers)
    rows = t_env.from_data_stream(add_rows(t_env, case))
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE nowhere (worker INT, id BIGINT, x ARRAY<DOUBLE>, y DOUBLE, "
        "padding STRING) WITH ('connector'='blackhole')"
    )
    rows.execute_insert("nowhere")


if __name__ == "__main__":
    main()
