"""Many random faults, one after the other in one JVM: `make faults-long`.

A tenth of them hits TaskManagers of a cluster of its own. Prints the seed first: the same
seed and count give the same faults again.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import traceback
from collections import defaultdict
from pathlib import Path

from tests.faults.flink.drill import DrillResult, run_drill
from tests.faults.flink.plan import Fault, Target, expected_outcome, random_faults
from tests.faults.flink.task_managers import TaskManagers, task_managers
from tests.flink.jvm import one_jvm

__all__ = ["main", "table"]


class _Run:
    """What has happened so far, written line by line."""

    def __init__(self, count: int) -> None:
        self.results: list[DrillResult] = []
        self.failed: list[Fault] = []
        self._count = count

    def hit(self, fault: Fault, cluster: TaskManagers | None = None) -> None:
        number = len(self.results) + len(self.failed) + 1
        try:
            if cluster is not None:
                cluster.bring_to(2)
            result = run_drill(fault, cluster)
        except Exception:  # noqa: BLE001 - whatever it is, the others go on
            self.failed.append(fault)
            _say(f"{number}/{self._count} {fault}: NOT AS EXPECTED\n{traceback.format_exc()}")
        else:
            self.results.append(result)
            outcome = f"{result.outcome.value} after {result.seconds:.1f} s"
            _say(f"{number}/{self._count} {fault}: {outcome}")


def table(results: list[DrillResult], failed: list[Fault]) -> str:
    """Return the results by kind of fault and what it led to."""
    seconds: dict[tuple[str, ...], list[float]] = defaultdict(list)
    bad: dict[tuple[str, ...], int] = defaultdict(int)
    for result in results:
        seconds[_kind(result.fault)].append(result.seconds)
    for fault in failed:
        bad[_kind(fault)] += 1
    lines = [
        "| target | signal | led to | count | as expected | p50 s | p95 s | max s |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in sorted(seconds.keys() | bad.keys()):
        took = sorted(seconds[kind])
        figures = [_quantile(took, 0.5), _quantile(took, 0.95), _quantile(took, 1.0)]
        cells = [*kind, str(len(took) + bad[kind]), str(len(took)), *figures]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    """Return the exit code: 0 if every fault went as expected."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.long", description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="by default a new one")
    parser.add_argument("--count", type=int, default=200)
    arguments = parser.parse_args()
    seed = arguments.seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    _say(f"seed {seed}: repeat with `make faults-long SEED={seed} COUNT={arguments.count}`")
    there = arguments.count // 10
    run = _Run(arguments.count)
    with one_jvm():
        for fault in random_faults(seed, arguments.count - there):
            run.hit(fault)
        with (
            tempfile.TemporaryDirectory(prefix="tm-") as folder,
            task_managers(Path(folder)) as cluster,
        ):
            for fault in random_faults(seed, there, (Target.TASK_MANAGER,)):
                run.hit(fault, cluster)
    _say(f"\n{table(run.results, run.failed)}\n")
    _say(f"seed {seed}: {len(run.failed)} not as expected")
    return 1 if run.failed else 0


def _kind(fault: Fault) -> tuple[str, str, str]:
    return fault.target.value, fault.signal.name, expected_outcome(fault).value


def _quantile(ordered: list[float], part: float) -> str:
    if not ordered:
        return "-"
    return f"{ordered[min(len(ordered) - 1, int(part * len(ordered)))]:.1f}"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
