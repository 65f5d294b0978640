"""An evaluator and a TensorBoard die beside a TensorFlow training with a kept state."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from threading import Event
from typing import Any

import cloudpickle
import pytest

from headrace.operator import JobHandle
from tests.faults.chaos.jobs import Case, OnStep, Places, submit
from tests.faults.chaos.proof import require_exact
from tests.faults.flink.killing import (
    cancelled_on_failure,
    expect_next_life,
    kill,
    processes_of_jobs,
    reported,
    require_nothing_left,
)
from tests.faults.flink.nodes import processes_by_node
from tests.faults.flink.sight import JobView
from tests.flink.processes import parent_of
from tests.flink.tensorflow_jobs import START_S, until_job
from tests.flink.test_board_role import page
from tests.ports import free_ports

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CASE = Case("tensorflow", 2, 64_000, 100_000)


def show(folder: str) -> OnStep:
    """Worker 0 shows the number of its step now and then; all are slow until they may go."""

    def on_step(ctx: Any) -> None:
        if Path(folder, "go").exists():
            return
        if ctx.index == 0 and ctx.steps % 5 == 0:
            with ctx.checkpoint_path(ctx.steps, keep=5) as path:
                path.touch()
        Event().wait(0.2)

    return on_step


def follow(ctx: Any) -> None:
    for step, _ in ctx.follow_checkpoints():
        ctx.report(step=step)


def seen_by_evaluator(job: JobHandle) -> float:
    return reported(job, "evaluator-0", "step")


def await_step_behind(job: JobHandle, shown: float) -> None:
    until_job(job, lambda: seen_by_evaluator(job) > shown, "later steps to be seen")


def await_progress(job: JobHandle, view: JobView) -> None:
    """Wait for two checkpoints: the second one has begun since."""
    before = view.completed_checkpoints()
    until_job(job, lambda: view.completed_checkpoints() > before + 1, "checkpoints")


def hit(job: JobHandle, view: JobView, name: str, number: signal.Signals) -> None:
    """Kill or freeze the process of a helper: it alone is replaced, the training goes on."""
    before = kill(name, number)
    if number is signal.SIGSTOP:
        await_progress(job, view)
        assert processes_by_node()[name] == before[name], "nobody has waited for its end"
    expect_next_life(name, before)


@pytest.mark.long  # ten processes that import TensorFlow
@pytest.mark.timeout(400)
def test_a_training_with_a_state_is_not_disturbed_by_the_deaths_of_its_helpers() -> None:
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory(prefix="helpers-") as name:
        folder = Path(name)
        job = submit(
            CASE,
            Places(folder),
            name="watched",
            options={"rest.port": str(port), "web.refresh-interval": "100"},
            on_step=show(name),
            more={
                "evaluator": follow,
                "tensorboard": True,
                "checkpoint_dir": folder / "shown",
            },
        )
        with cancelled_on_failure(job):
            view = JobView(port, job.job_id)
            until_job(job, lambda: seen_by_evaluator(job), "steps to be seen")
            board = str(job.status().nodes["tensorboard-0"].url)
            until_job(job, lambda: page(board), "TensorBoard")
            await_progress(job, view)

            for number in (signal.SIGKILL, signal.SIGSTOP):
                shown = seen_by_evaluator(job)
                hit(job, view, "evaluator-0", number)
                await_step_behind(job, shown)
                hit(job, view, "tensorboard-0", number)
                until_job(job, lambda: page(board), "TensorBoard again, at the same place")
                await_progress(job, view)
            assert view.failures() == []
            assert job.status().attempt == 1

            kill_node(job, "evaluator-0")
            await_step_behind(job, seen_by_evaluator(job))
            await_progress(job, view)
            (cause,) = view.failures()
            assert "The node process of evaluator-0 was ended by signal SIGKILL" in cause
            seen = processes_of_jobs()
            (folder / "go").touch()
            require_exact(CASE, job, Places(folder))
        require_nothing_left(seen)


def kill_node(job: JobHandle, name: str) -> None:
    """Kill the node process of a helper, a subtask of Flink's; wait for the next attempt."""
    process = processes_by_node()[name].process
    os.kill(parent_of(process.pid), signal.SIGKILL)
    until_job(
        job,
        lambda: (now := processes_by_node().get(name)) is not None and now.attempt > 1,
        "the next attempt",
        START_S,
    )
