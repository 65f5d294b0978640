"""Random kills of random processes, exact results, and how long they cost: `make chaos`.

Jobs count rows, train a model and emit both for each row into a transactional sink, in PyTorch
and TensorFlow, with one and two workers. Algorithm processes, nodes and masters get SIGKILL and
SIGSEGV until the jobs have recovered from 104 of these; some kills that come while a job is
still recovering, kills of spares and processes that are frozen for a moment come on top. The
jobs must end with every row once, counts and checksums as of all rows before, the steps without
a gap and the model of one process that makes the same steps (bit for bit with one worker).
Behind every recovery, and at the end, nothing of what was before may be left: no process, work
directory, segment, and in the JVM no thread, mapping, open file, socket or port; nor has the
JVM then many more descriptors and threads, of whatever kind, than after the first job.

A whole run writes `benchmarks/results/chaos.json`, with the recovery times by kind of process.
It takes three quarters of an hour. What kills cost over a long time is `benchmarks.goodput`'s
to say.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from benchmarks.report import RESULTS, at_least, percentiles, write_result
from tests.faults.chaos.jobs import Case, Places, submit
from tests.faults.chaos.jvm_log import JvmLog
from tests.faults.chaos.kills import Kill, Victims
from tests.faults.chaos.proof import require_exact
from tests.faults.chaos.traces import Growth, require_nothing_left
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
    growth = Growth()
    for case in cases:
        done = by_case[str(case)]
        while (left := kills // len(cases) - _recovered(done)) > 0:
            jobs += 1
            found = _run_job(case, left, chance)
            growth.require_little()
            assert _recovered(found), f"a job that was never hit: {found}"
            done += found
        _say(f"{case}: {_recovered(done)} recoveries, {len(done)} signals, exact")
    every = [kill for done in by_case.values() for kill in done]
    return {
        "jobs": jobs,
        "recoveries": {name: _recovered(done) for name, done in by_case.items()},
        "signals": _counts(every),
        "recovery_s": {
            "all": _by_kind(every),
            **{name: _by_kind(done) for name, done in by_case.items()},
        },
        "bars": {
            "kills that a job recovered from, with an exact result": at_least(
                _recovered(every), 100
            )
        },
    }


def _recovered(kills: list[Kill]) -> int:
    return len([kill for kill in kills if kill.recovery_s is not None])


def _counts(kills: list[Kill]) -> dict[str, int]:
    """Return how many signals there were, with those that no recovery was awaited after."""
    return dict(sorted(Counter(f"{each.signal.name} {each.kind}" for each in kills).items()))


def _by_kind(kills: list[Kill]) -> dict[str, dict[str, float]]:
    """Return the spread of the recovery times by kind of process."""
    found: dict[str, list[float]] = defaultdict(list)
    for kill in kills:
        if kill.recovery_s is not None:
            found[kill.kind].append(kill.recovery_s)
    return {kind: percentiles(found[kind]) for kind in sorted(found)}


def _run_job(case: Case, kills: int, chance: random.Random) -> list[Kill]:
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        places = Places(Path(folder))
        log = JvmLog()
        job = submit(case, places)
        found = []
        try:
            for kill in Victims(job, places, case.workers, chance, log).kill(kills):
                _say(f"{case}: {kill}")
                found.append(kill)
            require_exact(case, job, places)
        except BaseException:
            job.cancel()
            raise
        require_nothing_left(places)
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
