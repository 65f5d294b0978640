"""Random kills of random processes, exact results, and how long they cost: `make chaos`.

Jobs count rows, train a model and emit both for each row into a transactional sink, in PyTorch
and TensorFlow, with one and two workers. Algorithm processes, nodes and masters are killed with
SIGKILL until there were 104 of them; the jobs must end with every row once, counts and
checksums as of all rows before, the steps without a gap and the model of one process that makes
the same steps (bit for bit with one worker). Nothing may be left of them.

A whole run writes `benchmarks/results/chaos.json`, with the recovery times by kind of kill. It
takes half an hour. What kills cost over a long time is `benchmarks.goodput`'s to say.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, at_least, percentiles, write_result
from tests.faults.chaos.jobs import Case, Places, submit
from tests.faults.chaos.kills import Kill, Victims, require_nothing_left
from tests.faults.chaos.proof import require_exact
from tests.flink.jvm import one_jvm

_ROWS_PER_S = 400
_ROWS = 8_000
_CASES = [
    Case(framework, workers, _ROWS, _ROWS_PER_S)
    for framework in ("pytorch", "tensorflow")
    for workers in (1, 2)
]
_KILLS = 104


def run_chaos(cases: list[Case], kills: int, seed: int) -> dict[str, Any]:
    """Kill until each case has had its part; return what became of them, and the bar.

    Raises:
        AssertionError: Something was not exact, or something was left.
    """
    chance = random.Random(seed)
    by_case: dict[str, list[Kill]] = {str(case): [] for case in cases}
    jobs = 0
    for case in cases:
        done = by_case[str(case)]
        while len(done) < kills // len(cases):
            jobs += 1
            done += _run_job(case, kills // len(cases) - len(done), chance)
        _say(f"{case}: {len(done)} kills, exact")
    every = [kill for done in by_case.values() for kill in done]
    return {
        "jobs": jobs,
        "kills": {name: len(done) for name, done in by_case.items()},
        "recovery_s": {
            "all": _by_kind(every),
            **{name: _by_kind(done) for name, done in by_case.items()},
        },
        "bars": {"kills, each with an exact result": at_least(len(every), 100)},
    }


def _by_kind(kills: list[Kill]) -> dict[str, dict[str, float]]:
    """Return the spread of the recovery times by kind of kill."""
    found: dict[str, list[float]] = defaultdict(list)
    for kill in kills:
        if kill.recovery_s is not None:
            found[kill.kind].append(kill.recovery_s)
    return {kind: percentiles(found[kind]) for kind in sorted(found)}


def _run_job(case: Case, kills: int, chance: random.Random) -> list[Kill]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        places = Places(Path(folder))
        job = submit(case, places)
        try:
            found = list(Victims(job, places, case.workers, chance).kill(kills))
            require_exact(case, job, places)
        except BaseException:
            job.cancel()
            raise
        require_nothing_left()
        return found


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Kill, and write the figures to stdout and, of a whole run, into a file."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos")
    parser.add_argument("--kills", type=int, default=_KILLS, help="over all kinds of jobs")
    parser.add_argument("--seed", type=int, help="by default a new one")
    parser.add_argument("--only", help="one kind of job, as 'pytorch, 1 worker'")
    parser.add_argument(
        "--results",
        type=Path,
        help=f"folder for chaos.json; by default that of the benchmarks for a whole run, of "
        f"all kinds of jobs and at least {_KILLS} kills, and none for a part",
    )
    options = parser.parse_args()
    seed = options.seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    _say(f"seed {seed}: repeat with `make chaos SEED={seed}`")
    cases = [case for case in _CASES if options.only in (None, str(case))]
    if not cases:
        parser.error(f"--only {options.only!r} is none of {[str(case) for case in _CASES]}")
    is_whole = cases == _CASES and options.kills >= _KILLS
    folder = options.results or (RESULTS if is_whole else None)
    figures: dict[str, Any] = {"seed": seed, **run_chaos(cases, options.kills, seed)}
    if folder is not None:
        write_result("chaos", figures, folder)
    _say(json.dumps(figures, indent=2))


if __name__ == "__main__":
    with one_jvm():
        main()
