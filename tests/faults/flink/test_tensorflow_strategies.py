"""kill -9 of a worker under TensorFlow's own strategies, in batch mode."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import headrace.tensorflow
from tests.faults.flink.killing import (
    cancelled_on_failure,
    expect_next_life,
    kill,
    processes_of_jobs,
    reported,
    require_nothing_left,
)
from tests.flink.jvm import make_environment
from tests.flink.tensorflow_jobs import held, note, notes_of, until_job
from tests.waiting import pause_for

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SAVE_EVERY = 10


def coordinated(folder: str) -> Callable[[Any], None]:
    """A `ClusterCoordinator` that counts with its workers until the test lets go."""

    def main(ctx: Any) -> None:
        import json
        import os

        import tensorflow as tf

        note(folder, ctx)
        config = json.loads(os.environ["TF_CONFIG"])  # noqa: TID251 - as a script does it
        if config["task"]["type"] == "worker":
            tf.distribute.Server(
                tf.train.ClusterSpec(config["cluster"]),
                job_name="worker",
                task_index=config["task"]["index"],
                protocol="grpc",
            ).join()
        strategy = tf.distribute.ParameterServerStrategy(
            tf.distribute.cluster_resolver.TFConfigClusterResolver()
        )
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        with strategy.scope():
            count = tf.Variable(0, dtype=tf.int64)

        def numbers(_: Any) -> Any:
            return tf.data.Dataset.range(1, 2).repeat()

        @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
        def of_worker() -> Any:
            return strategy.distribute_datasets_from_function(numbers)

        @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
        def step(batches: Any) -> None:
            def replica(number: Any) -> None:
                count.assign_add(number)

            strategy.run(replica, args=(next(batches),))

        batches = iter(coordinator.create_per_worker_dataset(of_worker))
        asked = 0
        while not Path(folder, "go").exists():
            for _ in range(20):
                coordinator.schedule(step, args=(batches,))
            coordinator.join()
            asked += 20
            ctx.report(asked=asked, count=int(count.numpy()))
            pause_for(0.02)

    return main


def mirrored(folder: str) -> Callable[[Any], None]:
    """`MultiWorkerMirroredStrategy` that counts until the test lets go, and saves meanwhile."""

    def main(ctx: Any) -> None:
        import tensorflow as tf

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        with strategy.scope():
            count = tf.Variable(0, dtype=tf.int64)
            total = tf.Variable(0.0)
        saver = tf.train.Checkpoint(count=count, total=total)
        saved = ctx.latest_checkpoint()
        if saved is not None:
            saver.read(str(saved / "state")).assert_consumed()
        note(folder, ctx, began=int(count.read_value()), total=float(total.read_value()))

        @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
        def step(may_go: Any) -> Any:
            def replica() -> Any:
                group = tf.distribute.get_replica_context()
                total.assign_add(group.all_reduce("sum", tf.constant(0.5)))
                count.assign_add(tf.constant(1, tf.int64))
                return group.all_reduce("sum", tf.identity(may_go))

            return strategy.run(replica)

        may_go = 0.0
        while float(step(tf.constant(may_go))) == 0.0:
            may_go = float(Path(folder, "go").exists())
            now = int(count.read_value())
            ctx.report(count=now, total=float(total.read_value()))
            if ctx.index == 0 and now % SAVE_EVERY == 0:
                with ctx.checkpoint_path(now) as path:
                    path.mkdir()
                    saver.write(str(path / "state"))
            pause_for(0.02)

    return main


@pytest.mark.long
@pytest.mark.timeout(300)  # five starts of TensorFlow
def test_a_killed_worker_of_a_coordinator_comes_back_and_no_step_is_missing(
    tmp_path: Path,
) -> None:
    make_environment()
    plan = headrace.tensorflow.train(
        None, coordinated(str(tmp_path)), workers=2, ps=1, chief=True, name="coordinated"
    )
    job = plan.submit()
    with held(tmp_path), cancelled_on_failure(job):
        until_job(job, lambda: reported(job, "chief-0", "count") >= 40, "steps")
        expect_next_life("worker-1", kill("worker-1"))
        until_job(job, lambda: len(notes_of(tmp_path, "worker-1")) == 2, "its second life")
        passed = reported(job, "chief-0", "asked") + 200
        until_job(job, lambda: reported(job, "chief-0", "asked") >= passed, "more steps")
        seen = processes_of_jobs()
    status = job.wait(timeout_s=100).status
    assert (status.state, status.attempt, status.restarts) == ("FINISHED", 1, 0)
    report = status.nodes["chief-0"].report
    # A step that the killed worker was in may have been made before, and is made again.
    assert 0 <= report["count"] - report["asked"] <= 2
    require_nothing_left(seen)


@pytest.mark.long
@pytest.mark.timeout(300)  # four starts of TensorFlow
def test_a_mirrored_group_whose_worker_is_killed_goes_on_from_its_latest_checkpoint(
    tmp_path: Path,
) -> None:
    make_environment()
    plan = headrace.tensorflow.train(
        None,
        mirrored(str(tmp_path)),
        workers=2,
        max_restarts=2,
        checkpoint_dir=tmp_path / "checkpoints",
        name="mirrored",
    )
    job = plan.submit()
    with held(tmp_path), cancelled_on_failure(job):
        until_job(job, lambda: reported(job, "worker-0", "count") >= 3 * SAVE_EVERY, "steps")
        seen = processes_of_jobs()
        kill("worker-1")
        until_job(job, lambda: len(notes_of(tmp_path, "worker-0")) == 2, "the next attempt")
        began = notes_of(tmp_path, "worker-0")[-1]["began"]
        assert began >= 2 * SAVE_EVERY
        assert began % SAVE_EVERY == 0
        until_job(job, lambda: job.status().attempt == 2, "the status")
        until_job(job, lambda: reported(job, "worker-0", "count") > began + 20, "steps")
        seen += processes_of_jobs()
    status = job.wait(timeout_s=100).status
    assert (status.state, status.attempt, status.restarts) == ("FINISHED", 2, 1)
    for index in range(2):
        first, second = notes_of(tmp_path, f"worker-{index}")
        assert (first["began"], second["began"]) == (0, began)
        assert second["total"] == began  # each of two workers adds a half in each step
    require_nothing_left(seen)
