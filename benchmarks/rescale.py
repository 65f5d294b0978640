"""How long a running training takes to go on with two workers instead of one.

Flink's adaptive scheduler runs a PyTorch job that may have one or two workers. Its REST API is
asked for one, then for two, again and again; a rescale takes from the request for two until
both workers have made a step in common, of rows of their own. What Flink takes by itself is
taken off: the median of a job without Python, with the same source, options and requests, from
the request until its source runs again. (In the training job itself Flink's part has the end of
the old processes in it; it is reported beside.)

With spares, a request comes when two of them are ready: that of the worker, and one for a
worker that may come (docs/adr/0120). Without, when the worker has run for a while; nothing is
promised then, since the new group waits for the import of its framework.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from pyflink.table import StreamTableEnvironment

import headrace.pytorch
from benchmarks import recovery_worker, report
from benchmarks.flink_log import FlinkLog, own_log
from benchmarks.flink_rest import FlinkJob, free_port
from benchmarks.pipelines import cancel, endless_numbers, open_t_env
from benchmarks.processes import is_alive, wait_until
from headrace.config import ExchangeConfig

_SPARE_AFTER_S = 1.0
_UNDISTURBED_S = 3.0
_RANDOM_S = 1.0
_LIMIT_S = 180.0
_ROWS_PER_S = 400
_SOURCE = r"Source: numbers.* \(1/1\)"
_FIXED = r"numbers|\bam\b"  # one subtask each, in any case
_OPTIONS = {
    "execution.checkpointing.interval": "500 ms",
    "execution.checkpointing.tolerable-failed-checkpoints": "1000",
    "jobmanager.scheduler": "adaptive",
    "taskmanager.numberOfTaskSlots": "2",
    # A request is granted at the next checkpoint, as Flink does by default, and not half a
    # minute after the last one.
    "jobmanager.adaptive-scheduler.executing.cooldown-after-rescaling": "1 ms",
    "jobmanager.adaptive-scheduler.executing.resource-stabilization-timeout": "1 ms",
    "jobmanager.adaptive-scheduler.submission.resource-stabilization-timeout": "1 ms",
    "jobmanager.adaptive-scheduler.rescale-trigger.max-delay": "2 s",
}


def run_rescale(*, repeats: int) -> dict[str, Any]:
    """Measure; return the times of Flink alone, with spares and without, and the bar."""
    plain_s = _measure_plain(repeats)
    with_spares = _measure(repeats, _SPARE_AFTER_S, plain_s)
    without = _measure(repeats, None, plain_s)
    return {
        "repeats": repeats,
        "plain_flink_s": report.percentiles(plain_s),
        "with_spares": with_spares,
        "without_spares": without,
        "bars": {
            "1 -> 2 workers: request to the first step over Flink's rescale, p95 in s": (
                report.at_most(with_spares["over_plain_flink_s"]["p95"], 5.0)
            )
        },
    }


def _measure_plain(repeats: int) -> list[float]:
    """Rescale a job without Python; return seconds from each request for two subtasks."""
    seconds = []
    chance = random.Random(repeats)  # noqa: S311 - moments, no secrets
    with _t_env() as (t_env, port, _):
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE nowhere (id BIGINT) WITH ('connector'='blackhole')"
        )
        log = FlinkLog()
        client = t_env.sql_query("SELECT id + 1 FROM numbers").execute_insert("nowhere")
        j_client = client.get_job_client()
        assert j_client is not None
        # The cluster ends with its job, and then no longer says how that is.
        ended = j_client.get_job_execution_result()
        job = FlinkJob(port, str(j_client.get_job_id()))
        try:
            ran = log.await_run(_SOURCE, 0.0, limit_s=_LIMIT_S)
            for _ in range(repeats):
                for parallelism in (1, 2):
                    _pause(chance.uniform(_RANDOM_S, 2 * _RANDOM_S))
                    began = time.monotonic()
                    job.set_parallelism(parallelism, fixed=_FIXED)
                    ran = log.await_run(_SOURCE, began, limit_s=_LIMIT_S)
                seconds.append(ran - began)
                print(f"Flink alone: {seconds[-1]:.2f} s", flush=True)
        finally:
            j_client.cancel().result()
            wait_until(ended.done, limit_s=_LIMIT_S, what="the end of the job")
    return seconds


def _measure(
    repeats: int, spare_after_s: float | None, plain_s: list[float]
) -> dict[str, dict[str, float]]:
    """Rescale a training; return the spread of the times from each request for two workers."""
    chance = random.Random(repeats)  # noqa: S311 - moments, no secrets
    all_s, flinks, backs = [], [], []
    with _t_env() as (t_env, port, folder):
        marks = folder / "marks"
        marks.mkdir()
        log = FlinkLog()
        job = headrace.pytorch.train(
            t_env.from_path("numbers"),
            partial(recovery_worker.train_in_common, marks=marks),
            workers=(1, 2),
            exchange=ExchangeConfig(batch_rows=16),
            name="rescale",
            spare_after_s=spare_after_s,
        ).submit()
        rest = FlinkJob(port, job.job_id)
        try:
            group = _Group(marks)
            group.await_next(2)
            for _ in range(repeats):
                began = time.monotonic()
                rest.set_parallelism(1, fixed=_FIXED)
                backs.append(group.await_next(1) - began)
                if spare_after_s is None:
                    _pause(_UNDISTURBED_S)
                else:
                    _await_spares(log, group)
                _pause(chance.uniform(0, _RANDOM_S))
                began = time.monotonic()
                rest.set_parallelism(2, fixed=_FIXED)
                all_s.append(group.await_next(2) - began)
                flinks.append(log.await_run(_SOURCE, began, limit_s=_LIMIT_S) - began)
                print(
                    f"spare after {spare_after_s} s: {all_s[-1]:.2f} s, Flink "
                    f"{flinks[-1]:.2f} s; back to one {backs[-1]:.2f} s",
                    flush=True,
                )
        finally:
            cancel(job, limit_s=_LIMIT_S)
    plain = median(plain_s)
    return {
        "over_plain_flink_s": report.percentiles([each - plain for each in all_s]),
        "over_flink_s": report.percentiles([a - b for a, b in zip(all_s, flinks, strict=True)]),
        "request_to_first_step_s": report.percentiles(all_s),
        "flinks_part_s": report.percentiles(flinks),
        "back_to_one_worker_s": report.percentiles(backs),
    }


class _Group:
    """The group of workers that trains, by the marks that each attempt's workers leave."""

    def __init__(self, marks: Path) -> None:
        self._marks = marks
        self._attempt = 0
        self.pids: set[int] = set()

    def await_next(self, workers: int) -> float:
        """Wait for the first steps of a later attempt of so many; return the last of them."""
        found: dict[int, list[tuple[float, int]]] = {}

        def have_stepped() -> bool:
            found.clear()
            for path in self._marks.glob("[0-9]*"):
                attempt, world, _ = path.name.split("-")
                if int(attempt) > self._attempt and int(world) == workers:
                    instant, pid = path.read_text().split()
                    found.setdefault(int(attempt), []).append((float(instant), int(pid)))
            return any(len(each) == workers for each in found.values())

        wait_until(have_stepped, limit_s=_LIMIT_S, what=f"steps of {workers} workers")
        self._attempt, last = max(
            (attempt, each) for attempt, each in found.items() if len(each) == workers
        )
        self.pids = {pid for _, pid in last}
        return max(instant for instant, _ in last)


def _await_spares(log: FlinkLog, group: _Group) -> None:
    """Wait until two spares stand by: they were ready, live, and have not become workers."""

    def stand_by() -> bool:
        return sum(is_alive(pid) and pid not in group.pids for pid in log.spares()) >= 2

    wait_until(stand_by, limit_s=_LIMIT_S, what="two spares")


@contextmanager
def _t_env() -> Iterator[tuple[StreamTableEnvironment, int, Path]]:
    """Give an environment with the table `numbers`, its REST port and a folder."""
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="headrace-rescale-") as name:
        folder = Path(name)
        options = {
            **_OPTIONS,
            "rest.port": str(port),
            "execution.checkpointing.dir": (folder / "cp").as_uri(),
        }
        t_env = open_t_env(2, options)
        endless_numbers(t_env, _ROWS_PER_S)
        yield t_env, port, folder


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)


def main(arguments: list[str] | None = None) -> None:
    """Measure and write the figures."""
    options = report.parse_options("rescale", arguments)
    with own_log():
        figures = run_rescale(repeats=1 if options.smoke else 8)
        print(report.write_result("rescale", figures, options.results).read_text())


if __name__ == "__main__":
    main()
