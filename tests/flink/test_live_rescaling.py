"""The workers of a running training become more and fewer, by Flink's adaptive scheduler."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pyflink.java_gateway import get_gateway

import headrace.pytorch
import headrace.tensorflow
from headrace.errors import JobFailedError
from headrace.operator import JobHandle
from tests.ports import free_ports
from tests.samples import samples
from tests.waiting import until

from .conftest import MakeEnvironment
from .system import descendants
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir
from .test_kept_training import add_slow_numbers
from .test_operator_rows import CHECKPOINTS
from .test_training import require_union
from .training_jobs import STEPS, add_sink, read_rows, trainer

ROWS = 100_000  # more than are trained on before a stop, however slow the machine is
LIMIT_S = 200.0
ADAPTIVE = {
    "jobmanager_scheduler": "adaptive",
    "taskmanager_numberOfTaskSlots": "3",
    "jobmanager_adaptive__scheduler_executing_cooldown__after__rescaling": "1 ms",
    "jobmanager_adaptive__scheduler_executing_resource__stabilization__timeout": "1 ms",
    "jobmanager_adaptive__scheduler_submission_resource__stabilization__timeout": "1 ms",
    "jobmanager_adaptive__scheduler_rescale__trigger_max__delay": "1 s",
}


AHEAD = r"goes on in process (\d+), which was started ahead"


def rescale_as_the_guide_does() -> Callable[..., None]:
    """Return the function that the guide shows."""
    parts = samples("docs/guide/checkpoints.md", "py")
    (part,) = [each for each in parts if "def rescale(" in each]
    names: dict[str, Any] = {}
    exec(part.partition("\n\n\nrescale(")[0], names)
    function: Callable[..., None] = names["rescale"]
    return function


def rescale(job_url: str, workers: int) -> None:
    """Ask Flink for that many workers; operators of one subtask stay as they are."""
    rescale_as_the_guide_does()(job_url, workers, fixed=["trained am", "numbers"])


def running_workers(job: JobHandle) -> int:
    status = job.status()
    return sum(node.state == "running" for node in status.nodes.values())


def start(
    make_t_env: MakeEnvironment,
    folder: Path,
    workers: int | tuple[int, int],
    per_second: int,
    *,
    spare_after_s: float | None = 10.0,
    options: Mapping[str, str] | None = None,
) -> JobHandle:
    kept = {**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(folder / "cp")}
    t_env = make_t_env(2, **{**kept, **ADAPTIVE, **(options or {})})
    add_slow_numbers(t_env, ROWS, per_second)
    rows = t_env.sql_query(
        "SELECT id, ARRAY[CAST(MOD(id, 7) AS DOUBLE) / 8, CAST(MOD(id, 11) AS DOUBLE) / 16] AS "
        "x, CAST(MOD(id, 13) AS DOUBLE) / 32 AS y, padding FROM numbers"
    )
    plan = headrace.pytorch.train(
        rows,
        trainer(rows=16, keeps=True),
        workers=workers,
        exchange=SMALL,
        output=STEPS,
        output_dir=folder,
        name="trained",
        spare_after_s=spare_after_s,
    )
    return plan.submit(add_sink(t_env, plan, folder / "out"))


def require_that_many_train(job: JobHandle, workers: int) -> None:
    def do() -> bool:
        status = job.status()
        are_there = running_workers(job) == len(status.nodes) == workers
        return are_there and status.rows_in > 200

    until(do, f"{workers} workers that train", explain=lambda: f"{job.status()}")


@pytest.mark.timeout(300)
def test_workers_of_a_running_training_become_more_and_fewer_and_every_row_counts_once(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    job = start(make_t_env, tmp_path, 2, 250, options={"rest_port": str(port)})
    url = f"http://localhost:{port}/jobs/{job.job_id}"
    until(lambda: job.status().rows_in > 300, "rows")
    seen: list[Any] = []
    for workers in (3, 1, 2):
        before = job.status()
        rescale(url, workers)
        require_that_many_train(job, workers)
        after = job.status()
        assert after.attempt > before.attempt
        seen.append((workers, sorted(after.nodes)))
    assert [names for _, names in seen] == [
        [f"worker-{index}" for index in range(workers)] for workers in (3, 1, 2)
    ]
    stopped = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    assert stopped.savepoint is not None
    found = read_rows(tmp_path / "out")
    assert sorted(row["id"] for row in found) == list(range(len(found)))
    assert len(found) > 500
    steps = {row["step"] for row in found}
    assert steps == set(range(1, len(steps) + 1))
    assert {row["worker"] for row in found} == {0, 1, 2}
    require_union(found, tmp_path)
    nodes = stopped.status.nodes
    assert sum(node.report["rows"] for node in nodes.values()) == len(found)


WAIT = "jobmanager_adaptive__scheduler_submission_resource__wait__timeout"
TWO_SLOTS = {"taskmanager_numberOfTaskSlots": "2", WAIT: "10 s"}


def test_as_many_workers_run_as_there_are_slots_for(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    job = start(make_t_env, tmp_path, (1, 3), 1_000, options=TWO_SLOTS)
    until(lambda: job.status().rows_in > 100, "rows")
    result = job.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    assert sorted(result.status.nodes) == ["worker-0", "worker-1"]


def test_workers_of_a_training_that_grows_all_go_on_in_spares(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    options = {"taskmanager_numberOfTaskSlots": "2", "rest_port": str(port)}
    job = start(make_t_env, tmp_path, (1, 2), 250, spare_after_s=0, options=options)
    url = f"http://localhost:{port}/jobs/{job.job_id}"
    begin = len(log_text())
    require_that_many_train(job, 2)
    rescale(url, 1)
    require_that_many_train(job, 1)

    def standing() -> set[int]:
        log = log_text()[begin:]
        ready = {int(pid) for pid in re.findall(r"spare\] process (\d+) is ready", log)}
        taken = {int(pid) for pid in re.findall(AHEAD, log)}
        return (ready - taken) & {each.pid for each in descendants(os.getpid())}

    until(lambda: len(standing()) == 2, "one spare more than workers", explain=log_text)
    spares = standing()
    begin_of_growth = len(log_text())
    rescale(url, 2)
    require_that_many_train(job, 2)
    taken = {int(pid) for pid in re.findall(AHEAD, log_text()[begin_of_growth:])}
    assert taken == spares
    job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=LIMIT_S, show_progress=False)


def log_text() -> str:
    path = get_gateway().jvm.java.lang.System.getProperty("log.file")
    return Path(path).read_text(errors="replace")


def lack(needed: int, roles: str, *, offered: int) -> str:
    return (
        rf"(?s)Not enough resources.*Needed: at least {needed} task slot\(s\), for as many .* "
        rf"\({re.escape(roles)}\)\. Offered: 1 TaskManager\(s\) of {offered} slot\(s\) each"
    )


def test_fewer_workers_than_are_enough_are_not_started(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    job = start(make_t_env, tmp_path, 3, 1_000, options={**TWO_SLOTS, WAIT: "1 s"})
    with pytest.raises(JobFailedError, match=lack(3, "worker: 3", offered=2)):
        job.wait(timeout_s=LIMIT_S)
    assert job.status().nodes == {}


@pytest.mark.parametrize(("slots", "wait"), [(1, "1 s"), (2, "10 s")])
def test_servers_run_in_full_or_not_at_all_however_few_workers_are_enough(
    make_t_env: MakeEnvironment, tmp_path: Path, slots: int, wait: str
) -> None:
    def take(ctx: Any) -> None:
        ctx.report(rows=sum(len(batch["id"]) for batch in ctx.batches(rows=100)))

    options = {**ADAPTIVE, "taskmanager_numberOfTaskSlots": str(slots), WAIT: wait}
    t_env = make_t_env(1, **{**CHECKPOINTS, **in_dir(tmp_path / "cp"), **options})
    add_slow_numbers(t_env, 1_000, 10_000)
    rows = t_env.sql_query("SELECT id FROM numbers")
    plan = headrace.tensorflow.train(rows, take, workers=(1, 3), ps=2, spare_after_s=None)
    job = plan.submit()
    if slots == 1:
        with pytest.raises(JobFailedError, match=lack(2, "ps: 2, worker: 1 to 3", offered=1)):
            job.wait(timeout_s=LIMIT_S)
        assert job.status().nodes == {}
        return
    nodes = job.wait(timeout_s=LIMIT_S).status.nodes
    assert sorted(nodes) == ["ps-0", "ps-1", "worker-0", "worker-1"]
    assert sum(nodes[f"worker-{index}"].report["rows"] for index in range(2)) == 1_000
