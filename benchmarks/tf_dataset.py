"""Rows/s of `ctx.dataset` through a bare iteration, against the exchange's own rate.

One worker, 16 FLOAT columns, batches of 8,192 rows. It reads one half of the rows of a Flink
job as Arrow batches, which is what the exchange gives, and the other half as the
`tf.data.Dataset`; so both have the same source before them. A second figure has the rows in the
memory of the process, so that Flink does not decide: what the dataset itself can do.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

import headrace.tensorflow
import headrace.testing
from benchmarks import report
from benchmarks.pipelines import float_columns, open_t_env, rows_of
from benchmarks.tf_workers import WIDTH, read_dataset

_BATCH_ROWS = 8192
_LIMIT_S = 300.0
_PROMISED_ROWS_PER_S = 5e6


def run_tf_dataset(*, rows: int, repeats: int) -> dict[str, Any]:
    """Read in turns; return the rates and bars.

    Args:
        rows: Rows of each run, at least 8 batches.
        repeats: Runs of each kind.
    """
    from_flink = [_from_flink(rows) for _ in range(repeats)]
    from_memory = [_from_memory(rows) for _ in range(repeats)]
    ratios = [each["dataset"] / _promised(each["exchange"]) for each in from_flink]
    return {
        "rows": rows,
        "batch_rows": _BATCH_ROWS,
        "repeats": repeats,
        "rows_per_s_from_flink": {
            key: report.spread([each[key] for each in from_flink]) for key in from_flink[0]
        },
        "rows_per_s_from_memory": {
            key: report.spread([each[key] for each in from_memory]) for key in from_memory[0]
        },
        "bars": {
            "from Flink: dataset over 5 M rows/s or 0.85 of the exchange": report.at_least(
                report.spread(ratios)["median"], 1.0
            ),
            "from memory: Mrows/s of the dataset": report.at_least(
                report.spread([each["dataset"] for each in from_memory])["median"] / 1e6,
                _PROMISED_ROWS_PER_S / 1e6,
            ),
        },
    }


def _promised(exchange: float) -> float:
    return min(_PROMISED_ROWS_PER_S, 0.85 * exchange)


def _from_flink(rows: int) -> dict[str, float]:
    plan = headrace.tensorflow.train(
        rows_of(open_t_env(1), float_columns(WIDTH), rows),
        _reader(rows),
        name="tf-dataset",
    )
    result = plan.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
    rates = dict(result.status.nodes["worker-0"].report)
    print(f"from Flink: {rates}", flush=True)
    return rates


def _from_memory(rows: int) -> dict[str, float]:
    few = np.random.default_rng(0).standard_normal((WIDTH, 1 << 18), dtype=np.float32)
    table = pa.table({f"f{i}": few[i] for i in range(WIDTH)})
    whole = pa.concat_tables([table] * max(1, rows // table.num_rows))
    result = headrace.testing.run(
        _reader(whole.num_rows),
        whole,
        framework="tensorflow",
        has_port=True,
        batch_rows=_BATCH_ROWS,
    )
    rates = dict(result.reports[0])
    print(f"from memory: {rates}", flush=True)
    return rates


def _reader(rows: int) -> Any:
    return partial(
        read_dataset,
        rows=rows,
        batch_rows=_BATCH_ROWS,
        warm_up_rows=max(_BATCH_ROWS, rows // 8),
    )


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("tf_dataset", arguments)
    if options.smoke:
        figures = run_tf_dataset(rows=20 * _BATCH_ROWS, repeats=1)
    else:
        figures = run_tf_dataset(rows=40_000_000, repeats=3)
    print(report.write_result("tf_dataset", figures, options.results).read_text())


if __name__ == "__main__":
    main()
