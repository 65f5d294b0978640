"""How long a PyTorch job of two workers takes to start, to be cancelled and to recover.

- *Submit to the first step*, over what Flink and torch take by themselves. In each repeat, one
  after the other: a plain Flink job with the same source and query, from its submission until
  its first row is through; two bare interpreters that import torch at the same time, until both
  have; and the job, from its submission until the first common step. The clock is the
  machine's monotonic one in all processes.
- *Cancel* until the job has ended and none of its processes is left: right after the
  submission, while the workers import torch, while they train, and while the source stands
  before a full queue.
- *kill -9 of a worker in batch mode* to the first step of the next attempt, over the import of
  torch alone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pyflink.datastream import DataStream, StreamExecutionEnvironment
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment, Table

import headrace.pytorch
from benchmarks import lifecycle_workers, report
from benchmarks.java_probe import build_probe_jar
from benchmarks.pipelines import Column, float_list, open_t_env, rows_of
from benchmarks.processes import descendants, wait_until
from headrace import JobHandle
from headrace.errors import JobFailedError
from headrace.operator.jars import headrace_jar

_COLUMNS: list[Column] = [float_list(16)]
_ENOUGH_ROWS = 500_000_000  # a job with so many goes on until it is cancelled
_FEW_ROWS = 20_000
_LIMIT_S = 100.0
_MOMENTS = ("after the submission", "importing torch", "training", "full queue")
_ALONE = """\
import time
import torch
imported = time.monotonic()
model = torch.nn.Linear(16, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)  # imports a large part of torch
model(torch.randn(64, 16)).square().mean().backward()
optimizer.step()
print(imported, time.monotonic())
"""


def run_lifecycle(
    *,
    repeats: int,
    cancels: int,
    kills: int,
    workers: int = 2,
    moments: Sequence[str] = _MOMENTS,
) -> dict[str, Any]:
    """Measure everything; return figures and bars.

    Args:
        repeats: Starts of the job, each beside Flink and torch alone.
        cancels: Jobs that are cancelled at each moment.
        kills: How often a worker is killed, in one job.
        workers: Workers of each job.
        moments: When to cancel.
    """
    starts: list[dict[str, float]] = []
    cancel_s: dict[str, list[float]] = {moment: [] for moment in moments}
    with tempfile.TemporaryDirectory(prefix="headrace-lifecycle-") as scratch:
        jar = build_probe_jar(Path(scratch))
        plain_flink_s(jar, Path(scratch), workers)  # the JVM loads its classes once
        for repeat in range(repeats):
            starts.append(
                {
                    "plain Flink": plain_flink_s(jar, Path(scratch), workers),
                    **_torch_s(workers),
                }
            )
            starts[-1]["job"] = _first_step_s(workers)
            print(f"start, repeat {repeat}: {starts[-1]}", flush=True)
        for repeat in range(cancels):
            for moment in moments:
                cancel_s[moment].append(_cancel_s(moment, workers))
                print(f"cancel, repeat {repeat}: {moment}: {cancel_s[moment][-1]:.2f} s")
    torch_s = median(each["import torch"] for each in starts)
    recoveries = [s - torch_s for s in _recoveries_s(kills, workers)]
    net = [each["job"] - each["plain Flink"] - each["step of torch"] for each in starts]
    every_cancel = [s for values in cancel_s.values() for s in values]
    return {
        "start_s": {
            key: report.percentiles([each[key] for each in starts]) for key in starts[0]
        },
        "first_step_over_flink_and_torch_s": report.percentiles(net),
        "cancel_s": {moment: report.percentiles(values) for moment, values in cancel_s.items()},
        "kill_to_first_step_over_torch_s": report.percentiles(recoveries),
        "bars": {
            "first step over Flink's and torch's start, p50 in s": report.at_most(
                median(net), 2.0
            ),
            "cancel at any moment, max in s": report.at_most(max(every_cancel), 5.0),
            "kill -9 to the first step over torch's import, p50 in s": report.at_most(
                median(recoveries), 3.0
            ),
        },
    }


def features(t_env: StreamTableEnvironment, rows: int) -> Table:
    """Return a table of lists of 16 FLOAT."""
    return rows_of(t_env, _COLUMNS, rows)


def plain_flink_s(jar: Path, scratch: Path, workers: int) -> float:
    """Return the seconds from submission until the first row is at the end of the query."""
    t_env = open_t_env(workers)
    env = StreamExecutionEnvironment(t_env._j_tenv.execEnv())  # noqa: SLF001 - no public way
    env.add_jars(jar.as_uri(), headrace_jar().as_uri())
    jvm = get_gateway().jvm
    probes = jvm.org.headrace.benchmarks.RoundTrips
    j_stamps = probes.stamps(env._j_stream_execution_environment, 1, 1.0)  # noqa: SLF001
    t_env.create_temporary_view("ids", t_env.from_data_stream(DataStream(j_stamps)).alias("id"))
    table = t_env.sql_query(f"SELECT id, {_COLUMNS[0].expression} AS x FROM ids")  # noqa: S608
    to_row_data = jvm.org.headrace.operator.ClusterBuilder.toRowData
    first = scratch / "first"
    probes.probe(to_row_data(t_env._j_tenv, table._j_table), str(first))  # noqa: SLF001
    begin = time.monotonic()
    client = env.execute_async("plain")
    client.get_job_execution_result().result()
    arrivals = [
        line.split()[0]
        for path in scratch.glob("first*")
        for line in path.read_text().splitlines()
    ]
    return int(arrivals[0]) / 1e9 - begin


def _torch_s(workers: int) -> dict[str, float]:
    """Return the seconds until as many interpreters as workers have imported and used torch."""
    begin = time.monotonic()
    programs = [
        subprocess.Popen([sys.executable, "-c", _ALONE], stdout=subprocess.PIPE, text=True)
        for _ in range(workers)
    ]
    said = [program.communicate(timeout=_LIMIT_S)[0].split() for program in programs]
    return {
        "import torch": max(float(imported) for imported, _ in said) - begin,
        "step of torch": max(float(stepped) for _, stepped in said) - begin,
    }


def _first_step_s(workers: int) -> float:
    with tempfile.TemporaryDirectory(prefix="headrace-marks-") as folder:
        marks = Path(folder)
        entry = partial(lifecycle_workers.train_on_rows, marks=marks)
        job = headrace.pytorch.train(
            features(open_t_env(workers), _FEW_ROWS), entry, workers=workers, name="start"
        )
        begin = time.monotonic()
        job.submit().wait(show_progress=False, timeout_s=_LIMIT_S)
        return max(_mark(marks, 1, rank)[0] for rank in range(workers)) - begin


def _cancel_s(moment: str, workers: int) -> float:
    """Return the seconds from cancelling until the job has ended and its processes are gone."""
    with tempfile.TemporaryDirectory(prefix="headrace-marks-") as folder:
        marks = Path(folder)
        is_blocked = moment == "full queue"
        function: Callable[..., None] = lifecycle_workers.train_on_rows
        if is_blocked:
            function = lifecycle_workers.block_for_ever
        plan = headrace.pytorch.train(
            features(open_t_env(workers), _ENOUGH_ROWS),
            partial(function, marks=marks),
            workers=workers,
            name="cancel",
        )
        job = plan.submit()
        if moment == "importing torch":
            what = "a worker process"
            wait_until(lambda: _processes("runner") > 0, limit_s=_LIMIT_S, what=what)
        elif moment != "after the submission":
            wait_until(
                lambda: _has_marks(marks, 1, workers), limit_s=_LIMIT_S, what="the first step"
            )
            threading.Event().wait(1.0)  # steps go on, or the queue has filled up
        begin = time.monotonic()
        job.cancel()
        _await_end(job)
        wait_until(lambda: _processes("") == 0, limit_s=_LIMIT_S, what="the end of all")
        return time.monotonic() - begin


def _await_end(job: JobHandle) -> None:
    try:
        job.wait(show_progress=False, timeout_s=_LIMIT_S)
    except JobFailedError:  # that is how a cancelled job ends
        return
    msg = "a job that was cancelled has finished"
    raise AssertionError(msg)


def _recoveries_s(kills: int, workers: int) -> list[float]:
    """Return the seconds from each kill of worker 0 to the first step of the next attempt."""
    seconds = []
    with tempfile.TemporaryDirectory(prefix="headrace-marks-") as folder:
        marks = Path(folder)
        entry = partial(lifecycle_workers.train_on_files, marks=marks)
        job = headrace.pytorch.train(
            None, entry, workers=workers, name="recover", max_restarts=kills
        ).submit()
        for attempt in range(1, kills + 1):
            _await_marks(marks, attempt, workers)
            begin = time.monotonic()
            os.kill(_mark(marks, attempt, 0)[1], signal.SIGKILL)
            _await_marks(marks, attempt + 1, workers)
            first = max(_mark(marks, attempt + 1, rank)[0] for rank in range(workers))
            seconds.append(first - begin)
            print(f"kill {attempt}: {seconds[-1]:.2f} s to the next step", flush=True)
        (marks / "stop").touch()
        job.wait(show_progress=False, timeout_s=_LIMIT_S)
    return seconds


def _await_marks(marks: Path, attempt: int, workers: int) -> None:
    what = f"the first step of attempt {attempt}"
    wait_until(lambda: _has_marks(marks, attempt, workers), limit_s=_LIMIT_S, what=what)


def _has_marks(marks: Path, attempt: int, workers: int) -> bool:
    return all((marks / f"{attempt}-{rank}").exists() for rank in range(workers))


def _mark(marks: Path, attempt: int, rank: int) -> tuple[float, int]:
    instant, pid = (marks / f"{attempt}-{rank}").read_text().split()
    return float(instant), int(pid)


def _processes(module: str) -> int:
    """Return how many processes of Headrace run below this program."""
    commands = descendants(os.getpid()).values()
    return sum(f"-m headrace.framework.{module}" in command for command in commands)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("lifecycle", arguments)
    if options.smoke:
        figures = run_lifecycle(
            repeats=1, cancels=1, kills=1, workers=1, moments=["importing torch"]
        )
    else:
        figures = run_lifecycle(repeats=5, cancels=4, kills=5)
    print(report.write_result("lifecycle", figures, options.results).read_text())


if __name__ == "__main__":
    main()
