"""How long a checkpoint keeps a training waiting, against a copy of its state in memory.

A Flink job feeds a process whose model has 100 MB, with a checkpoint each second. The process
times what a barrier keeps its loop waiting for, while Flink still writes the checkpoint before
or not, and after each one a copy of as many bytes from one array to another.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.checkpoint_worker import train_and_time
from benchmarks.pipelines import open_t_env
from headrace import Cluster, RoleConfig

_WARM_UP = 3
_ROWS_PER_S = 100
_ROWS = 30_000  # more than it takes: the process ends the job
_LIMIT_S = 200.0


def run_pause(*, state_mb: int, checkpoints: int, every_ms: int, jobs: int) -> dict[str, Any]:
    """Measure in several jobs; return the times of pauses and copies, and the bar."""
    taken = [_run(state_mb, checkpoints, every_ms) for _ in range(jobs)]
    over_ms = report.spread([each["pause_ms"] - 2 * each["copy_ms"] for each in taken])
    return {
        "state_mb": state_mb,
        "checkpoint_every_ms": every_ms,
        "jobs": jobs,
        "checkpoints": int(sum(each["checkpoints"] for each in taken)),
        "first_pause_ms": report.spread([each["first_ms"] for each in taken]),
        "pause_ms": _spread_over(taken, "pause"),
        "copy_ms": _spread_over(taken, "copy"),
        "bars": {
            f"{state_mb} MB: pause over two copies, ms": report.at_most(over_ms["median"], 10)
        },
    }


def _spread_over(taken: list[dict[str, float]], name: str) -> dict[str, float]:
    """Spread over all checkpoints of all jobs; the median is that of the jobs' medians."""
    return {
        "median": report.spread([each[f"{name}_ms"] for each in taken])["median"],
        "min": min(each[f"{name}_min_ms"] for each in taken),
        "max": max(each[f"{name}_max_ms"] for each in taken),
    }


def _run(state_mb: int, checkpoints: int, every_ms: int) -> dict[str, float]:
    """Run a job; return what its process has reported."""
    t_env = open_t_env()
    with tempfile.TemporaryDirectory(prefix="headrace-checkpoints-") as folder:
        options = {
            "execution.checkpointing.interval": f"{every_ms} ms",
            "execution.checkpointing.dir": Path(folder).as_uri(),
        }
        for key, value in options.items():
            t_env.get_config().set(key, value)
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
            "'fields.id.kind'='sequence', 'fields.id.start'='1', "
            f"'fields.id.end'='{_ROWS}', 'rows-per-second'='{_ROWS_PER_S}')"
        )
        cluster = Cluster(t_env, name="pause")
        cluster.add_am_role()
        entry = partial(
            train_and_time, state_mb=state_mb, warm_up=_WARM_UP, checkpoints=checkpoints
        )
        cluster.add_role("worker", RoleConfig(entry=entry), input=t_env.from_path("numbers"))
        result = cluster.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
    found = result.status.nodes["worker-0"].report
    print(found, flush=True)
    return found


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("checkpoint_pause", arguments)
    if options.smoke:
        figures = run_pause(state_mb=2, checkpoints=3, every_ms=100, jobs=1)
    else:
        figures = run_pause(state_mb=100, checkpoints=30, every_ms=1_000, jobs=3)
    print(report.write_result("checkpoint_pause", figures, options.results).read_text())


if __name__ == "__main__":
    main()
