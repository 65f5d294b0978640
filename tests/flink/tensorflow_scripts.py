"""Training programs as TensorFlow's users have them, and the sample files that they read.

Of Headrace they take the folder and, at the end, `ctx.report`. They travel by value.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle

from tests.flink.tensorflow_jobs import note
from tests.waiting import live_until_ended, until

cloudpickle.register_pickle_by_value(sys.modules[__name__])

FILES = 2
SAMPLES = 256
"""In each file."""
WEIGHTS = (2.0, 1.0)
PIXELS = 16


def write_samples(folder: Path) -> None:
    """Two TFRecord files and two CSV files of one linear relation, and two pictures."""
    import numpy as np
    import tensorflow as tf

    for number in range(FILES):
        x = np.random.default_rng(number).normal(size=(SAMPLES, 2)).astype(np.float32)
        y = x @ np.array(WEIGHTS, np.float32)
        with tf.io.TFRecordWriter(str(folder / f"{number}.tfrecord")) as writer:
            for features, target in zip(x, y, strict=True):
                lists = {"x": features, "y": [target]}
                feature = {
                    name: tf.train.Feature(float_list=tf.train.FloatList(value=values))
                    for name, values in lists.items()
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                writer.write(example.SerializeToString())
        lines = [f"{a},{b},{c}" for (a, b), c in zip(x.tolist(), y.tolist(), strict=True)]
        (folder / f"{number}.csv").write_text("\n".join(["a,b,y", *lines]))
        picture = np.full((PIXELS, PIXELS, 1), 10 * (number + 1), np.uint8)
        tf.io.write_file(str(folder / f"{number}.png"), tf.io.encode_png(picture))


def coordinator_script(folder: str) -> Callable[[Any], None]:
    """`ParameterServerStrategy` with a `ClusterCoordinator`, on TFRecord files."""

    def main(ctx: Any) -> None:
        import tensorflow as tf

        config = json.loads(os.environ["TF_CONFIG"])  # noqa: TID251 - as the script does it
        note(folder, ctx, config=config, spec=ctx.cluster_spec)
        if config["task"]["type"] == "worker":
            server = tf.distribute.Server(
                tf.train.ClusterSpec(config["cluster"]),
                job_name="worker",
                task_index=config["task"]["index"],
                protocol="grpc",
            )
            server.join()
        strategy = tf.distribute.ParameterServerStrategy(
            tf.distribute.cluster_resolver.TFConfigClusterResolver()
        )
        coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
        with strategy.scope():
            weights = tf.Variable([0.0, 0.0])
            count = tf.Variable(0, dtype=tf.int64)

        def parse(serialized: Any) -> Any:
            found = tf.io.parse_single_example(
                serialized,
                {
                    "x": tf.io.FixedLenFeature([2], tf.float32),
                    "y": tf.io.FixedLenFeature([], tf.float32),
                },
            )
            return found["x"], found["y"]

        def read(_: Any) -> Any:
            files = tf.data.Dataset.list_files(f"{folder}/*.tfrecord", shuffle=False)
            return tf.data.TFRecordDataset(files).map(parse).repeat().batch(64)

        @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
        def of_worker() -> Any:
            return strategy.distribute_datasets_from_function(read)

        @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
        def step(batches: Any) -> Any:
            def replica(batch: Any) -> Any:
                x, y = batch
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((tf.linalg.matvec(x, weights) - y) ** 2)
                weights.assign_sub(0.05 * tape.gradient(loss, weights))
                count.assign_add(1)
                return loss

            return strategy.run(replica, args=(next(batches),))

        batches = iter(coordinator.create_per_worker_dataset(of_worker))
        for _ in range(200):
            coordinator.schedule(step, args=(batches,))
        coordinator.join()
        found = weights.numpy()
        ctx.report(w0=float(found[0]), w1=float(found[1]), count=int(count.numpy()))

    return main


def mirrored_script(folder: str) -> Callable[[Any], None]:
    """`MultiWorkerMirroredStrategy` with an own loop, on a CSV file and a picture for each."""

    def main(ctx: Any) -> None:
        import tensorflow as tf

        strategy = tf.distribute.MultiWorkerMirroredStrategy()
        resolver = strategy.cluster_resolver
        config = json.loads(os.environ["TF_CONFIG"])  # noqa: TID251 - as the script does it
        note(folder, ctx, config=config, spec=ctx.cluster_spec)
        with strategy.scope():
            weights = tf.Variable([0.0, 0.0])

        def read(context: Any) -> Any:
            return (
                tf.data.experimental.CsvDataset(
                    f"{folder}/{context.input_pipeline_id}.csv",
                    [tf.float32] * 3,
                    header=True,
                )
                .repeat()
                .batch(64)
            )

        @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
        def step(batch: Any) -> None:
            def replica(batch: Any) -> None:
                a, b, y = batch
                x = tf.stack([a, b], axis=1)
                with tf.GradientTape() as tape:
                    loss = tf.reduce_mean((tf.linalg.matvec(x, weights) - y) ** 2)
                group = tf.distribute.get_replica_context()
                both = group.all_reduce("mean", tape.gradient(loss, weights))
                weights.assign_sub(0.1 * both)

            strategy.run(replica, args=(batch,))

        batches = iter(strategy.distribute_datasets_from_function(read))
        for _ in range(60):
            step(next(batches))
        picture = tf.io.decode_png(tf.io.read_file(f"{folder}/{resolver.task_id}.png"))
        found = weights.read_value().numpy()
        ctx.report(
            w0=float(found[0]),
            w1=float(found[1]),
            pixels=float(tf.reduce_sum(tf.cast(picture, tf.float32))),
        )
        if resolver.task_id:
            Path(folder, "trained").touch()
            live_until_ended()
        until(Path(folder, "trained").exists, "the other worker", 100.0)

    return main
