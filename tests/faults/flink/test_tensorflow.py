"""kill -9 of each of TensorFlow's roles, in batch and in stream mode."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import cloudpickle
import pytest

import headrace.tensorflow
from headrace.config import TimeoutConfig
from headrace.errors import JobFailedError
from headrace.operator import JobHandle
from tests.faults.flink.killing import (
    cancelled_on_failure,
    expect_next_life,
    kill,
    processes_of_jobs,
    reported,
    require_nothing_left,
)
from tests.flink.jvm import make_environment
from tests.flink.system import Process, descendants, listening_ports
from tests.flink.tensorflow_jobs import START_S, build_model, held, note, notes_of, until_job
from tests.flink.test_board_role import page
from tests.flink.training_jobs import add_numbers, split_rows
from tests.waiting import live_until_ended, pause_for

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SAVE_EVERY = 20
NOTICE_S = TimeoutConfig().stop_grace_s + 8.0
"""Peers must not wait for a time-out of theirs; all limits of Headrace's are longer."""


def count_on_servers(folder: str) -> Callable[[Any], None]:
    """Count steps on a parameter server until the test lets go; the one that leads saves.

    After a restart of the group it goes on from what was saved.
    """

    def entry(ctx: Any) -> None:
        import tensorflow as tf

        with ctx.parameter_servers():
            count = tf.Variable(0, dtype=tf.int64, trainable=False)
            weights = tf.Variable([0.0, 0.0])
        saver = tf.train.Checkpoint(count=count, weights=weights)
        if ctx.is_chief:
            saved = ctx.latest_checkpoint()
            if saved is not None and int(count) == 0:
                saver.read(str(saved / "state")).assert_consumed()
            began = int(count)
            ctx.publish("restored", "yes")
        else:
            ctx.lookup("restored", 60.0)
            began = int(count)
        note(folder, ctx, began=began, weights=weights.numpy().tolist())
        next_save = began + SAVE_EVERY
        while not Path(folder, "go").exists():
            weights.assign_add([1.0, 0.5])
            now = int(count.assign_add(1))
            ctx.report(count=now)
            if ctx.is_chief and now >= next_save:
                next_save = now + SAVE_EVERY
                with ctx.checkpoint_path(now) as path:
                    path.mkdir()
                    saver.write(str(path / "state"))
                    (path / "upto").write_text(str(int(count)))  # others count on meanwhile
            pause_for(0.02)

    return entry


def follow(ctx: Any) -> None:
    for step, _ in ctx.follow_checkpoints():
        ctx.report(step=step)


@contextmanager
def batch_job(folder: Path, **roles: Any) -> Iterator[JobHandle]:
    """A job that counts, with all roles running; at the end let it go and see how it ends."""
    make_environment()
    seen: set[Process] = set()
    ports: set[int] = set()
    plan = headrace.tensorflow.train(
        None,
        count_on_servers(str(folder)),
        ps=1,
        evaluator=follow,
        max_restarts=5,
        output_dir=folder,
        checkpoint_dir=folder / "checkpoints",
        name="killed",
        **roles,
    )
    job = plan.submit()
    with held(folder), cancelled_on_failure(job):
        until_job(job, lambda: reported(job, "evaluator-0", "step"), "a checkpoint")
        yield job
        seen.update(processes_of_jobs())
        ports.update(
            int(str(n.address).rpartition(":")[2]) for n in job.status().nodes.values()
        )
    status = job.wait(timeout_s=100).status
    assert status.state == "FINISHED"
    leaders = [name for name in status.nodes if name in ("chief-0", "worker-0")]
    assert status.nodes[min(leaders)].state == "finished"
    require_nothing_left(seen)
    of_jvms = {p for e in descendants(os.getpid()) for p in listening_ports(e.pid)}
    assert not ports & of_jvms


@pytest.mark.timeout(400)  # seven starts of TensorFlow
def test_a_worker_an_evaluator_or_a_tensorboard_that_is_killed_is_started_again_alone(
    tmp_path: Path,
) -> None:
    with batch_job(tmp_path, workers=2, tensorboard=True) as job:
        board = str(job.status().nodes["tensorboard-0"].url)
        until_job(job, lambda: page(board), "TensorBoard")

        before = kill("worker-1")
        count = max(reported(job, f"worker-{i}", "count") for i in range(2))
        expect_next_life("worker-1", before)
        until_job(job, lambda: len(notes_of(tmp_path, "worker-1")) == 2, "its second life")
        assert notes_of(tmp_path, "worker-1")[-1]["began"] >= count > 0
        assert len(notes_of(tmp_path, "worker-0")) == 1

        expect_next_life("evaluator-0", kill("evaluator-0"))
        expect_next_life("tensorboard-0", kill("tensorboard-0"))
        until_job(job, lambda: page(board), "TensorBoard again, at the same place")
        passed = reported(job, "worker-0", "count") + SAVE_EVERY
        until_job(job, lambda: reported(job, "evaluator-0", "step") >= passed, "news to follow")
        status = job.status()
        assert (status.attempt, status.restarts) == (1, 0)


@pytest.mark.timeout(500)  # thirteen starts of TensorFlow
def test_a_group_whose_ps_or_chief_is_killed_goes_on_from_its_latest_checkpoint(
    tmp_path: Path,
) -> None:
    with batch_job(tmp_path, workers=1, chief=True) as job:
        until_job(job, lambda: notes_of(tmp_path, "worker-0"), "its first life")
        expect_next_life("worker-0", kill("worker-0"))
        until_job(job, lambda: len(notes_of(tmp_path, "worker-0")) == 2, "its second life")
        for attempt, name in ((2, "ps-0"), (3, "chief-0")):
            saved = [step_of(path) for path in checkpoints(tmp_path, attempt - 1)]
            kill(name)
            require_next_attempt(job, tmp_path, attempt, at_least=max(saved))
        assert job.status().restarts == 2


def require_next_attempt(job: JobHandle, folder: Path, attempt: int, at_least: int) -> None:
    """The group goes on from the newest checkpoint of the attempt before, and saves."""
    until_job(job, lambda: len(notes_of(folder, "chief-0")) == attempt, "the next attempt")
    first = notes_of(folder, "chief-0")[-1]
    assert first["attempt"] == attempt
    newest = max(checkpoints(folder, attempt - 1), key=step_of)
    assert step_of(newest) >= at_least > 0
    assert step_of(newest) <= first["began"] <= int((newest / "upto").read_text())
    assert first["weights"][0] == 2 * first["weights"][1] > 0
    until_job(job, lambda: job.status().attempt == attempt, "the status")
    until_job(job, lambda: reported(job, "worker-0", "count") > first["began"], "steps")
    until_job(job, lambda: checkpoints(folder, attempt), "a checkpoint of its own")


def step_of(path: Path) -> int:
    return int(path.name.partition(".")[0].removeprefix("step-"))


def checkpoints(folder: Path, attempt: int) -> list[Path]:
    return list((folder / "checkpoints").glob(f"*/step-*.attempt-{attempt}"))


@pytest.mark.timeout(200)
def test_a_worker_that_always_fails_ends_the_job_after_its_lives_with_the_traceback(
    tmp_path: Path,
) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        if ctx.index == 0:
            live_until_ended()
        note(folder, ctx)
        msg = "no better than before"
        raise RuntimeError(msg)

    make_environment()
    plan = headrace.tensorflow.train(
        None, entry, workers=2, ps=1, max_restarts=1, name="hopeless"
    )
    parts = r"(?s)(?=.*worker-1: RuntimeError: no better)(?=.*in entry\n)(?=.*am\.max_restarts)"
    with pytest.raises(JobFailedError, match=parts):
        plan.submit().wait(timeout_s=150)
    assert [each["attempt"] for each in notes_of(tmp_path, "worker-1")] == [1, 1]


@pytest.mark.long  # the batch job above loses both as well
@pytest.mark.timeout(300)
def test_in_stream_mode_a_killed_evaluator_or_tensorboard_costs_no_row(tmp_path: Path) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        seen = total = 0
        for number, batch in enumerate(ctx.batches(100), start=1):
            seen += len(batch["id"])
            total += int(batch["id"].sum())
            if not Path(folder, "go").exists():
                with ctx.checkpoint_path(number, keep=5) as path:
                    path.touch()
                ctx.report(step=number)
                pause_for(0.2)
        note(folder, ctx, rows=seen, total=total)

    rows = 200_000
    t_env = make_environment()
    add_numbers(t_env, rows)
    plan = headrace.tensorflow.train(
        t_env.from_path("numbers"),
        entry,
        evaluator=follow,
        tensorboard=True,
        output_dir=tmp_path,
        checkpoint_dir=tmp_path / "checkpoints",
        name="watched",
    )
    job = plan.submit()
    with held(tmp_path), cancelled_on_failure(job):
        until_job(job, lambda: reported(job, "evaluator-0", "step"), "a checkpoint")
        board = str(job.status().nodes["tensorboard-0"].url)
        until_job(job, lambda: page(board), "TensorBoard")
        expect_next_life("evaluator-0", kill("evaluator-0"))
        expect_next_life("tensorboard-0", kill("tensorboard-0"))
        until_job(job, lambda: page(board), "TensorBoard again, at the same place")
        passed = reported(job, "worker-0", "step")
        until_job(job, lambda: reported(job, "evaluator-0", "step") > passed, "news to follow")
        seen = processes_of_jobs()
    status = job.wait(timeout_s=60).status
    assert (status.state, status.attempt, status.restarts) == ("FINISHED", 1, 0)
    (noted,) = notes_of(tmp_path, "worker-0")
    assert (noted["rows"], noted["total"]) == (rows, rows * (rows - 1) // 2)
    require_nothing_left(seen)


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("ps", "victim"),
    [
        pytest.param(1, "worker-1", marks=pytest.mark.long),
        (1, "ps-0"),
        pytest.param(1, "chief-0", marks=pytest.mark.long),
        pytest.param(0, "worker-1", marks=pytest.mark.long),
    ],
)
def test_in_stream_mode_the_killed_process_is_the_cause_and_nobody_waits(
    tmp_path: Path, ps: int, victim: str
) -> None:
    folder = str(tmp_path)

    def entry(ctx: Any) -> None:
        import keras

        if ps:
            with ctx.parameter_servers():
                model = build_model()
        else:
            model = build_model()
        model.compile("sgd", "mse")
        if not ps:
            ctx.data_parallel(model)

        class Started(keras.callbacks.Callback):  # type: ignore[misc] # Keras has no types
            def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
                Path(folder, f"reached-{ctx.index}").touch()
                pause_for(0.01)

        rows = ctx.dataset(16, columns=["x", "y"], shapes={"x": (2,)})
        model.fit(rows.map(lambda row: (row["x"], row["y"])), verbose=0, callbacks=[Started()])

    def lead(ctx: Any) -> None:
        with ctx.parameter_servers():
            build_model()
        live_until_ended()

    t_env = make_environment(parallelism=2)
    add_numbers(t_env, 1_000_000)
    plan = headrace.tensorflow.train(
        split_rows(t_env, "MOD(id, 2)"),
        entry,
        workers=2,
        ps=ps,
        chief=lead if victim == "chief-0" else False,
        name="stream",
    )
    job = plan.submit()
    until_job(
        job,
        lambda: all((tmp_path / f"reached-{i}").exists() for i in range(2)),
        "both workers to train",
        START_S,
    )
    seen = processes_of_jobs()
    kill(victim)
    killed_at = monotonic()
    with pytest.raises(JobFailedError) as caught:
        job.wait(timeout_s=60)
    seconds = monotonic() - killed_at
    assert f"{victim}: " in caught.value.cause
    assert "SIGKILL" in caught.value.cause
    assert seconds < NOTICE_S, f"it took {seconds:.1f} s"
    require_nothing_left(seen)
