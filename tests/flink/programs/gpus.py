"""Says what workers see of a host's GPUs: `gpus.py SINK_URI WORKERS DEVICE ROWS_PER_SECOND`."""

from __future__ import annotations

import os
import sys
from typing import Any

from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment

from headrace.config import TimeoutConfig
from headrace.pytorch import PythonModel, predict


def main(sink_uri: str, workers: int, device: Any, rows_per_second: int) -> None:
    """Run one job; the sink has the worker's process and GPU of each row."""

    def factory() -> Any:
        def score(columns: Any) -> Any:
            rows = len(columns["id"])
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")  # noqa: TID251 - its own
            return {"pid": [os.getpid()] * rows, "gpu": [seen] * rows}

        return score

    t_env = StreamTableEnvironment.create(
        StreamExecutionEnvironment.get_execution_environment().set_parallelism(workers)
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='1', 'fields.id.end'='400', "
        f"'rows-per-second'='{rows_per_second}')"
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE sink (id BIGINT, pid BIGINT, gpu STRING) WITH "
        f"('connector'='filesystem', 'path'='{sink_uri}', 'format'='json')"
    )
    scored = predict(
        t_env.from_path("numbers"),
        PythonModel(factory),
        outputs={"pid": DataTypes.BIGINT(), "gpu": DataTypes.STRING()},
        device=device,
        timeouts=TimeoutConfig(process_start_timeout_s=10),
    )
    scored.execute_insert("sink").wait()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
