"""Models in Ray Data and Spark: `python -m benchmarks.scoring_elsewhere ray mlp 100000`.

Run by `benchmarks.scoring` in an environment that has both; prints the seconds of each number
of rows. One worker, one thread, the same batches; rows are made where each system makes them,
and discarded.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch

from benchmarks.scored_models import BATCH_ROWS, WIDTHS, build_model


class _Scores:
    """Scores a batch of Ray Data: a mapping with the matrix `x`."""

    def __init__(self, name: str) -> None:
        torch.set_num_threads(1)
        self._model = torch.jit.script(build_model(name).eval())

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        with torch.inference_mode():
            return {"y": self._model(torch.from_numpy(batch["x"].copy())).numpy()}


def _ray_seconds(name: str) -> Callable[[int], float]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    width, batch_rows = WIDTHS[name], BATCH_ROWS[name]

    def run(rows: int) -> float:
        def made(batch: dict[str, Any]) -> dict[str, Any]:
            ids = batch["id"].astype(np.float32)[:, None]
            return {"x": ids + np.arange(width, dtype=np.float32)}

        began = time.perf_counter()
        scored = (
            ray.data.range(rows)
            .map_batches(made, batch_size=batch_rows)
            .map_batches(
                _Scores, fn_constructor_args=(name,), batch_size=batch_rows, concurrency=1
            )
        )
        for _ in scored.iter_batches(batch_size=None):
            pass
        return time.perf_counter() - began

    return run


def _spark_seconds(name: str) -> Callable[[int], float]:
    from pyspark.ml.functions import predict_batch_udf
    from pyspark.sql import SparkSession
    from pyspark.sql.functions import array, col
    from pyspark.sql.types import ArrayType, FloatType

    session = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.execution.arrow.maxRecordsPerBatch", str(BATCH_ROWS[name]))
        .getOrCreate()
    )
    width, batch_rows = WIDTHS[name], BATCH_ROWS[name]

    def make() -> Callable[[Any], Any]:
        torch.set_num_threads(1)
        model = torch.jit.script(build_model(name).eval())

        def score(x: Any) -> Any:
            with torch.inference_mode():
                return model(torch.from_numpy(x.astype(np.float32))).numpy()

        return score

    scores = predict_batch_udf(
        make,
        return_type=ArrayType(FloatType()),
        batch_size=batch_rows,
        input_tensor_shapes=[[width]],
    )

    def run(rows: int) -> float:
        made = session.range(0, rows, 1, 1).select(
            array(*((col("id") + n).cast("float") for n in range(width))).alias("x")
        )
        began = time.perf_counter()
        made.select(scores("x").alias("y")).write.format("noop").mode("overwrite").save()
        return time.perf_counter() - began

    return run


def _seconds(system: str, name: str, rows: list[int]) -> Iterator[float]:
    run = {"ray": _ray_seconds, "spark": _spark_seconds}[system](name)
    run(rows[0])  # starts the workers
    yield from map(run, rows)


if __name__ == "__main__":
    for seconds in _seconds(sys.argv[1], sys.argv[2], [int(count) for count in sys.argv[3:]]):
        print("seconds", seconds, flush=True)
