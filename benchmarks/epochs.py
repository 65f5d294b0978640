"""Second and later passes over the input, against the same rows in a memory-mapped Arrow file.

A Flink job feeds rows of ARRAY<FLOAT> of 784 to one process, which reads them several times in
batches of 1024 and of 64 rows. Before each later pass the same process reads the file, in
batches of the same size, as fast as pyarrow cuts them (`Table.to_batches`). Every value is
added up in both.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.epoch_reader import read_in_turns
from benchmarks.pipelines import float_list, open_t_env, rows_of
from headrace import Cluster, RoleConfig

_WIDTH = 784
_LIMIT_S = 200.0


def run_epochs(
    *, rows: int, batch_rows: tuple[int, ...], epochs: int, jobs: int
) -> dict[str, Any]:
    """Measure each batch size in several jobs; return rates and bars.

    Several, since the rate also depends on where the two files happen to lie in memory.
    """
    taken = {size: _measure(rows, size, epochs, jobs) for size in batch_rows}
    ratios = {
        size: report.spread([e / f for e, f in zip(epoch, file, strict=True)])
        for size, (epoch, file) in taken.items()
    }
    return {
        "rows": rows,
        "columns": f"ARRAY<FLOAT> of {_WIDTH}",
        "jobs": jobs,
        "passes": epochs - 1,
        "rows_per_s": {
            str(size): {"later passes": report.spread(epoch), "file": report.spread(file)}
            for size, (epoch, file) in taken.items()
        },
        "later_passes_over_file": {str(size): ratio for size, ratio in ratios.items()},
        "bars": {
            f"batches of {size}: later passes over the file": report.at_least(
                ratio["median"], 0.9
            )
            for size, ratio in ratios.items()
        },
    }


def _measure(
    rows: int, batch_rows: int, epochs: int, jobs: int
) -> tuple[list[float], list[float]]:
    """Return rows/s of each later pass of all jobs, and of the file before it."""
    later: list[float] = []
    files: list[float] = []
    for _ in range(jobs):
        rates = _run(rows, batch_rows, epochs)
        print(f"batches of {batch_rows}: {rates}", flush=True)
        later += [rates[f"epoch_{i}"] for i in range(1, epochs)]
        files += [rates[f"file_{i}"] for i in range(1, epochs)]
    return later, files


def _run(rows: int, batch_rows: int, epochs: int) -> dict[str, float]:
    """Run a job; return what its process has reported."""
    t_env = open_t_env()
    with tempfile.TemporaryDirectory(prefix="headrace-epochs-") as folder:
        entry = partial(
            read_in_turns,
            rows=rows,
            batch_rows=batch_rows,
            epochs=epochs,
            path=str(Path(folder) / "rows.arrow"),
        )
        cluster = Cluster(t_env, name="epochs")
        cluster.add_am_role()
        cluster.add_role(
            "reader", RoleConfig(entry=entry), input=rows_of(t_env, [float_list(_WIDTH)], rows)
        )
        result = cluster.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
    return result.status.nodes["reader-0"].report


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("epochs", arguments)
    if options.smoke:
        figures = run_epochs(rows=3_000, batch_rows=(64,), epochs=2, jobs=1)
    else:
        figures = run_epochs(rows=60_000, batch_rows=(1024, 64), epochs=9, jobs=4)
    print(report.write_result("epochs", figures, options.results).read_text())


if __name__ == "__main__":
    main()
