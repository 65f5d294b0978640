"""How long a checkpoint keeps a training waiting, against a copy of its state in memory.

A Flink job has more rows than a process can take whose model has 100 MB or 1 GB, with a
checkpoint each second or each five. The process times the gap between the last step before a
barrier and the first behind it, over the gap between other steps: the copy of the state, the
acknowledgement, what the operator does, and the way of the next rows through the empty queue,
while Flink still writes the checkpoint before or not. Behind each it times a copy of as many
bytes from one array to another. The batch before a barrier is shorter, so there is one step
more; that is not in it. Jobs of both sizes and both frameworks take turns. The pause is linear
in the state if one of 1 GB, too, is no longer than two copies, and takes at most a fifth more
per MB than one of 100 MB.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.checkpoint_worker import train_in_pytorch, train_in_tensorflow
from benchmarks.pipelines import Column, open_t_env, rows_of
from headrace import Cluster, RoleConfig
from headrace.config import ExchangeConfig
from headrace.role.entry import RoleEntry
from headrace.tensorflow import TFEntry

_FRAMEWORKS: dict[str, tuple[Callable[..., Any], Callable[..., None]]] = {
    "PyTorch": (RoleEntry, train_in_pytorch),
    "TensorFlow": (TFEntry, train_in_tensorflow),
}
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
    """Measure both sizes in both frameworks; return times of pauses and copies, and the bars.

    Args:
        small: The size that the other one is compared with.
        large: The other one.
        rounds: Jobs of each size in each framework.
    """
    taken: dict[str, dict[_Size, list[dict[str, float]]]] = {
        framework: {small: [], large: []} for framework in _FRAMEWORKS
    }
    for _ in range(rounds):
        for size in (small, large):
            for framework, by_size in taken.items():
                by_size[size].append(_run(framework, size))
                print(framework, size, by_size[size][-1], flush=True)
    figures = {
        framework: _figures(by_size[small], by_size[large], small, large)
        for framework, by_size in taken.items()
    }
    bars = {}
    for framework, found in figures.items():
        for size in (small, large):
            over_ms = found["sizes"][str(size)]["pause_over_two_copies_ms"]["median"]
            name = f"{framework}, {size}: pause over two copies, ms"
            bars[name] = report.at_most(over_ms, 10)
        per_mb = found["pause_per_mb_over_that_of_the_small_one"]["median"]
        name = f"{framework}, {large}: pause per MB over that of {small}"
        bars[name] = report.at_most(per_mb, 1.2)
    return {"jobs": rounds, "frameworks": figures, "bars": bars}


def _figures(
    of_small: list[dict[str, float]],
    of_large: list[dict[str, float]],
    small: _Size,
    large: _Size,
) -> dict[str, Any]:
    """Return what the jobs of both sizes in one framework have shown."""
    per_mb = [
        (two["pause_ms"] / large.state_mb) / (one["pause_ms"] / small.state_mb)
        for one, two in zip(of_small, of_large, strict=True)
    ]
    return {
        "sizes": {
            str(size): {
                "checkpoint_every_ms": size.every_ms,
                "checkpoints": int(sum(each["checkpoints"] for each in jobs)),
                "first_pause_ms": report.spread([each["first_ms"] for each in jobs]),
                "second_pause_ms": report.spread([each["second_ms"] for each in jobs]),
                "usual_gap_ms": report.spread([each["usual_gap_ms"] for each in jobs]),
                "pause_ms": _spread_over(jobs, "pause"),
                "copy_ms": _spread_over(jobs, "copy"),
                "pause_over_two_copies_ms": report.spread(
                    [each["pause_ms"] - 2 * each["copy_ms"] for each in jobs]
                ),
            }
            for size, jobs in ((small, of_small), (large, of_large))
        },
        "pause_per_mb_over_that_of_the_small_one": report.spread(per_mb),
    }


def _spread_over(taken: list[dict[str, float]], name: str) -> dict[str, float]:
    """Spread over all checkpoints of all jobs; the median is that of the jobs' medians."""
    return {
        "median": report.spread([each[f"{name}_ms"] for each in taken])["median"],
        "min": min(each[f"{name}_min_ms"] for each in taken),
        "max": max(each[f"{name}_max_ms"] for each in taken),
    }


def _run(framework: str, size: _Size) -> dict[str, float]:
    """Run a job; return what its process has reported."""
    entry_of, train = _FRAMEWORKS[framework]
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
            train,
            state_mb=size.state_mb,
            warm_up=_WARM_UP,
            checkpoints=size.checkpoints,
        )
        role = RoleConfig(
            entry=entry_of(entry),
            has_port=True,  # TensorFlow names its processes by them
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
            small=_Size(state_mb=100, checkpoints=12, every_ms=1_000),
            large=_Size(state_mb=1_000, checkpoints=5, every_ms=5_000),
            rounds=3,
        )
    print(report.write_result("checkpoint_pause", figures, options.results).read_text())


if __name__ == "__main__":
    main()
