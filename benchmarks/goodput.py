"""How much of the time a training that is killed every 15 s makes steps, and how many count.

A PyTorch job of one worker, with a checkpoint each half second and a restart delay of 0.1 s;
for ten minutes its algorithm process and its node are killed with SIGKILL, in turns. Reported:
the share of time in which steps advance (a gap between two steps of over a quarter of a second
is a standstill), the share of steps that were not made a second time, their product, and the
recovery times by kind of kill, from the kill to the first step of the next process.
"""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table

import headrace.pytorch
from benchmarks import recovery_worker, report
from benchmarks.java_probe import build_probe_jar
from benchmarks.pipelines import cancel, open_restarting
from benchmarks.processes import parent_of, wait_until
from headrace.config import ExchangeConfig

_KINDS = ("process", "node")
_STANDSTILL_S = 0.25
_LIMIT_S = 100.0
_ROWS_PER_S = 400.0  # 25 steps a second, at an even pace
_ENOUGH_ROWS = 10_000_000
_RECOVERY_BAR_S = 3.5  # 3 s over Flink's own restart, which takes less than half a second
_REDONE_BAR_S = 1.0  # two intervals between checkpoints


def run_goodput(*, kills: int, every_s: float, spare_after_s: float | None) -> dict[str, Any]:
    """Train and kill; return shares of time and steps, recovery times, and the bars.

    Args:
        kills: How many.
        every_s: Seconds from one to the next; the first comes as long after the first step.
        spare_after_s: As for `headrace.pytorch.train`.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-goodput-") as folder:
        steps = Path(folder, "steps")
        steps.mkdir()
        t_env = open_restarting(Path(folder))
        job = headrace.pytorch.train(
            _even_numbers(t_env, build_probe_jar(Path(folder))),
            partial(recovery_worker.train_and_log, steps=steps),
            exchange=ExchangeConfig(batch_rows=16),
            name="goodput",
            spare_after_s=spare_after_s,
        ).submit()
        try:
            recoveries = _kill(steps, kills, every_s)
        finally:
            cancel(job, limit_s=_LIMIT_S)
        shares = _shares(steps)
    return {
        "kills": kills,
        "every_s": every_s,
        "spare_after_s": spare_after_s,
        **shares,
        "recovery_s": {
            kind: report.percentiles(each) for kind, each in recoveries.items() if each
        },
        "bars": {
            f"a kill every {every_s:g} s: share of time with steps": report.at_least(
                shares["share_of_time_with_steps"], 1 - _RECOVERY_BAR_S / every_s
            ),
            f"a kill every {every_s:g} s: share of steps not made twice": report.at_least(
                shares["share_of_steps_not_made_twice"], 1 - _REDONE_BAR_S / every_s
            ),
        },
    }


def _even_numbers(t_env: StreamTableEnvironment, jar: Path) -> Table:
    """Return a table of one BIGINT column `id` whose rows come one by one.

    Flink's own generator in SQL gives all rows of a second at its begin, and then none.
    """
    env = StreamExecutionEnvironment(t_env._j_tenv.execEnv())  # noqa: SLF001 - no public way
    env.add_jars(jar.as_uri())
    j_stamps = get_gateway().jvm.org.headrace.benchmarks.RoundTrips.stamps(
        env._j_stream_execution_environment,  # noqa: SLF001
        _ENOUGH_ROWS,
        _ROWS_PER_S,
    )
    return t_env.from_data_stream(DataStream(j_stamps)).alias("id")


def _kill(steps: Path, kills: int, every_s: float) -> dict[str, list[float]]:
    """Kill in time, and train on for as long behind the last; return the recovery times."""
    found: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    pid = _next_pid(steps, set())
    pids = {pid}
    due = time.monotonic()
    for kill in range(kills):
        due += every_s
        threading.Event().wait(max(0.0, due - time.monotonic()))
        kind = _KINDS[kill % len(_KINDS)]
        victim = pid if kind == "process" else parent_of(pid)
        began = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        pid = _next_pid(steps, pids)
        pids.add(pid)
        found[kind].append(_log_of(steps / str(pid))[0][0] - began)
        print(f"kill {kill + 1} of {kills}, {kind}: {found[kind][-1]:.2f} s", flush=True)
    threading.Event().wait(max(0.0, due + every_s - time.monotonic()))
    return found


def _next_pid(steps: Path, seen: set[int]) -> int:
    """Wait for the first step of a process that was not seen before; return its pid."""
    found: list[int] = []

    def has_stepped() -> bool:
        found[:] = [
            int(path.name)
            for path in steps.iterdir()
            if int(path.name) not in seen and _log_of(path)
        ]
        return bool(found)

    wait_until(has_stepped, limit_s=_LIMIT_S, what="the first step")
    (pid,) = found
    return pid


def _log_of(path: Path) -> list[tuple[float, int]]:
    """Return instant and number of each step of a process; half a last line is none."""
    lines = path.read_text().split("\n")[:-1]
    return [(float(instant), int(step)) for instant, step in map(str.split, lines)]


def _shares(steps: Path) -> dict[str, float]:
    made = sorted(each for path in steps.iterdir() for each in _log_of(path))
    instants = [instant for instant, _ in made]
    gaps = [b - a for a, b in itertools.pairwise(instants)]
    seconds = instants[-1] - instants[0]
    standstill_s = sum(gap for gap in gaps if gap > _STANDSTILL_S)
    numbers = {step for _, step in made}
    assert numbers == set(range(1, len(numbers) + 1)), "the steps that count have gaps"
    advancing = 1 - standstill_s / seconds
    counting = len(numbers) / len(made)
    return {
        "seconds": seconds,
        "steps": len(numbers),
        "share_of_time_with_steps": advancing,
        "share_of_steps_not_made_twice": counting,
        "goodput": advancing * counting,
    }


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("goodput", arguments)
    if options.smoke:
        figures = run_goodput(kills=1, every_s=5.0, spare_after_s=None)
    else:
        figures = run_goodput(kills=39, every_s=15.0, spare_after_s=10.0)
    print(report.write_result("goodput", figures, options.results).read_text())


if __name__ == "__main__":
    main()
