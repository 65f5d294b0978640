"""How long a checkpoint keeps a training waiting, against a copy of its state in memory.

A Flink job has more rows than a process can take whose model has 100 MB or 1 GB, with a
checkpoint each second or each five. The process times the gap between the last step before a
barrier and the first behind it, over the gap between other steps: the copy of the state, the
acknowledgement, what the operator does, and the way of the next rows through the empty queue,
while Flink still writes the checkpoint before or not. Behind each it times a copy of as many
bytes from one array to another. The batch before a barrier is shorter, so there is one step
more; that is not in it. Jobs of both sizes take turns. The pause is linear in the state if one
of 1 GB, too, is no longer than two copies, and takes at most a fifth more per MB than one of
100 MB.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.checkpoint_worker import train_and_time
from benchmarks.pipelines import Column, open_t_env, rows_of
from headrace import Cluster, RoleConfig
from headrace.config import ExchangeConfig

_WARM_UP = 3
_ROWS = 2_000_000  # more than it takes; the others are discarded then
_LIMIT_S = 200.0
# Few rows, of 1 kB each, are under way, or a barrier would wait behind minutes of them.
_NARROW = {
    "taskmanager.memory.segment-size": "4kb",
    "taskmanager.network.memory.buffers-per-channel": "2",
    "taskmanager.network.memory.floating-buffers-per-gate": "2",
}
_WIDE = Column(name="padding", type="STRING", expression="REPEAT('x', 1000)")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Size:
    """How a size is measured.

    Attributes:
        state_mb: Of the model, in MB.
        checkpoints: That count, in each job.
        every_ms: From one checkpoint to the next, in milliseconds.
    """

    state_mb: int
    checkpoints: int
    every_ms: int

    def __str__(self) -> str:
        return f"{self.state_mb} MB"


def run_pause(*, small: _Size, large: _Size, rounds: int) -> dict[str, Any]:
    """Measure both sizes in turns; return the times of pauses and copies, and the bars.

    Args:
        small: The size that the other one is compared with.
        large: The other one.
        rounds: Jobs of each size.
    """
    taken: dict[_Size, list[dict[str, float]]] = {small: [], large: []}
    for _ in range(rounds):
        for size, jobs in taken.items():
            jobs.append(_run(size))
            print(size, jobs[-1], flush=True)
    over_copies_ms = {
        size: report.spread([each["pause_ms"] - 2 * each["copy_ms"] for each in jobs])
        for size, jobs in taken.items()
    }
    per_mb = report.spread(
        [
            (of_large["pause_ms"] / large.state_mb) / (of_small["pause_ms"] / small.state_mb)
            for of_small, of_large in zip(taken[small], taken[large], strict=True)
        ]
    )
    return {
        "jobs": rounds,
        "sizes": {
            str(size): {
                "checkpoint_every_ms": size.every_ms,
                "checkpoints": int(sum(each["checkpoints"] for each in jobs)),
                "first_pause_ms": report.spread([each["first_ms"] for each in jobs]),
                "usual_gap_ms": report.spread([each["usual_gap_ms"] for each in jobs]),
                "pause_ms": _spread_over(jobs, "pause"),
                "copy_ms": _spread_over(jobs, "copy"),
                "pause_over_two_copies_ms": over_copies_ms[size],
            }
            for size, jobs in taken.items()
        },
        "pause_per_mb_over_that_of_the_small_one": per_mb,
        "bars": {
            **{
                f"{size}: pause over two copies, ms": report.at_most(over_ms["median"], 10)
                for size, over_ms in over_copies_ms.items()
            },
            f"{large}: pause per MB over that of {small}": report.at_most(
                per_mb["median"], 1.2
            ),
        },
    }


def _spread_over(taken: list[dict[str, float]], name: str) -> dict[str, float]:
    """Spread over all checkpoints of all jobs; the median is that of the jobs' medians."""
    return {
        "median": report.spread([each[f"{name}_ms"] for each in taken])["median"],
        "min": min(each[f"{name}_min_ms"] for each in taken),
        "max": max(each[f"{name}_max_ms"] for each in taken),
    }


def _run(size: _Size) -> dict[str, float]:
    """Run a job; return what its process has reported."""
    with tempfile.TemporaryDirectory(prefix="headrace-checkpoints-") as folder:
        options = {
            **_NARROW,
            "execution.checkpointing.interval": f"{size.every_ms} ms",
            "execution.checkpointing.dir": Path(folder).as_uri(),
        }
        t_env = open_t_env(options=options)
        cluster = Cluster(t_env, name="pause")
        cluster.add_am_role()
        entry = partial(
            train_and_time,
            state_mb=size.state_mb,
            warm_up=_WARM_UP,
            checkpoints=size.checkpoints,
        )
        role = RoleConfig(
            entry=entry,
            exchange=ExchangeConfig(batch_rows=4, slots=2),
            spare_after_s=None,  # its import would take a core
        )
        cluster.add_role("worker", role, input=rows_of(t_env, [_WIDE], _ROWS))
        result = cluster.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
    return result.status.nodes["worker-0"].report


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("checkpoint_pause", arguments)
    if options.smoke:
        figures = run_pause(
            small=_Size(state_mb=2, checkpoints=3, every_ms=100),
            large=_Size(state_mb=4, checkpoints=3, every_ms=100),
            rounds=1,
        )
    else:
        figures = run_pause(
            small=_Size(state_mb=100, checkpoints=30, every_ms=1_000),
            large=_Size(state_mb=1_000, checkpoints=12, every_ms=5_000),
            rounds=3,
        )
    print(report.write_result("checkpoint_pause", figures, options.results).read_text())


if __name__ == "__main__":
    main()
