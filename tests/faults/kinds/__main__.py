"""Kills and freezes of every kind on a real cluster, and how long they cost: `make kinds`.

A PyTorch training of two workers, with a checkpoint each half second and its state in it, runs
on two of three TaskManagers with one slot each, under Flink's high availability: a JobManager
leads and another one stands by. It is struck at random moments behind a completed checkpoint,
when both workers have a spare that is ready. A recovery time is from the strike (of a process
that the kernel ends for its memory, from its end) until both workers have made a step in the
next attempt, by the marks that they write themselves.

For a TaskManager that is lost, frozen or cut off the third one takes over, so no start of a JVM
is in the time; that of a worker that imports its framework is, as it has no spare. What is lost
is replaced before the next strike, a JobManager too. Hosts are cut off in another cluster, over
four network namespaces, without high availability.

A job of Flink alone, with the same source, options and parallelism on the same cluster, gets
what can hit it as well, until its source runs again: the peer figure. Masters are
`make chaos`'s to kill: workers train on meanwhile. At the end every training must have every
row once and the model of one process that makes the same steps, and nothing may be left.

A whole run writes `benchmarks/results/recovery_by_kind.json`.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, write_result
from tests.faults.kinds.kinds import KINDS
from tests.faults.kinds.measure import measure_kinds, say


def main() -> None:
    """Strike, and write the figures to stdout and, of a whole run, into a file."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.kinds")
    parser.add_argument("--seed", type=int, help="by default a new one")
    parser.add_argument("--only", help="one kind, as 'TaskManager killed'")
    parser.add_argument("--repeats", type=int, help="strikes of each kind; else 8, or 5")
    parser.add_argument(
        "--results",
        type=Path,
        help="folder for recovery_by_kind.json; by default that of the benchmarks for a whole "
        "run, without --only and --repeats, and none for a part",
    )
    options = parser.parse_args()
    seed = options.seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    say(f"seed {seed}: repeat with `make kinds SEED={seed}`")
    kinds = [kind for kind in KINDS if options.only in (None, kind.name)]
    if not kinds:
        parser.error(f"--only {options.only!r} is none of {[kind.name for kind in KINDS]}")
    if options.repeats is not None and options.repeats < 1:
        parser.error(f"--repeats {options.repeats} must be at least 1")
    is_whole = options.only is None and options.repeats is None
    folder = options.results or (RESULTS if is_whole else None)
    found = measure_kinds(kinds, random.Random(seed), options.repeats)
    figures: dict[str, Any] = {"seed": seed, **found}
    if folder is not None:
        write_result("recovery_by_kind", figures, folder)
    say(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
