"""Random kills of random processes, exact results, and how long they cost: `make chaos`.

Jobs count rows, train a model and emit both for each row into a transactional sink, in PyTorch
and TensorFlow, with one and two workers. Algorithm processes, nodes and masters are killed with
SIGKILL until there were 104 of them; the jobs must end with every row once, counts and
checksums as of all rows before, the steps without a gap and the model of one process that makes
the same steps (bit for bit with one worker). Nothing may be left of them.

`goodput`: one kill every 15 s for ten minutes, with a restart delay of 0.1 s, and which part
of the time and of the steps counted. All in all three quarters of an hour.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks.report import write_result
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
_EVERY_S = 15.0
_MINUTES = 10.0
_BIN_S = 0.5


def run_chaos(cases: list[Case], kills: int, seed: int) -> dict[str, Any]:
    """Kill until each case has had its part; return what became of them.

    Raises:
        AssertionError: Something was not exact, or something was left.
    """
    chance = random.Random(seed)
    seconds: dict[str, list[float]] = defaultdict(list)
    done: dict[str, int] = {}
    jobs = 0
    for case in cases:
        done[str(case)] = 0
        while done[str(case)] < kills // len(cases):
            jobs += 1
            for kill in _run_job(case, kills // len(cases) - done[str(case)], chance):
                done[str(case)] += 1
                if kill.recovery_s is not None:
                    seconds[f"{case}: {kill.kind}"].append(kill.recovery_s)
            _say(f"{case}: {done[str(case)]} kills, exact")
    return {
        "jobs": jobs,
        "kills": done,
        "recovery_s": {name: _quantiles(found) for name, found in seconds.items()},
    }


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


def run_goodput(case: Case, every_s: float, seed: int) -> dict[str, Any]:
    """Kill the algorithm process of a random worker every `every_s` seconds to the end."""
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        places = Places(Path(folder))
        job = submit(case, places)
        victims = Victims(job, places, case.workers, chance)
        kills = 0
        next_s = time.monotonic() + every_s
        while not victims.has_ended:
            threading.Event().wait(max(0.0, next_s - time.monotonic()))
            next_s += every_s
            kills += victims.kill_one("process") is not None
        steps = require_exact(case, job, places)
        times = [
            float(line.split()[0])
            for path in places.steps.glob("0-*")
            for line in path.read_text().splitlines()
        ]
    require_nothing_left()
    bins = {int(each / _BIN_S) for each in times}
    return {
        "kills": kills,
        "every_s": every_s,
        "seconds": max(times) - min(times),
        "share_of_time_with_steps": len(bins) / (max(bins) - min(bins) + 1),
        "share_of_steps_that_count": steps / len(times),
    }


def _quantiles(found: list[float]) -> dict[str, float]:
    ordered = sorted(found)
    at = {"p50": 0.5, "p95": 0.95, "max": 1.0}
    return {
        "count": len(ordered),
        **{
            name: ordered[min(len(ordered) - 1, int(q * len(ordered)))]
            for name, q in at.items()
        },
    }


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> None:
    """Kill, and write the figures to stdout, and with `--results` into a file there."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.chaos")
    parser.add_argument("--kills", type=int, default=_KILLS, help="over all kinds of jobs")
    parser.add_argument("--seed", type=int, help="by default a new one")
    parser.add_argument("--only", help="one kind of job, as 'pytorch, 1 worker'")
    parser.add_argument("--no-goodput", action="store_true", help="without its 20 minutes")
    parser.add_argument("--results", type=Path, help="folder for chaos.json")
    options = parser.parse_args()
    seed = options.seed
    if seed is None:
        seed = random.SystemRandom().randrange(1_000_000)
    _say(f"seed {seed}: repeat with `make chaos SEED={seed}`")
    cases = [case for case in _CASES if options.only in (None, str(case))]
    figures: dict[str, Any] = {"seed": seed, **run_chaos(cases, options.kills, seed)}
    if not options.no_goodput:
        rows = int(_MINUTES * 60 * _ROWS_PER_S)
        figures["goodput"] = {
            workers: run_goodput(Case("pytorch", workers, rows, _ROWS_PER_S), _EVERY_S, seed)
            for workers in (1, 2)
        }
    if options.results is not None:
        write_result("chaos", figures, options.results)
    _say(json.dumps(figures, indent=2))


if __name__ == "__main__":
    with one_jvm():
        main()
