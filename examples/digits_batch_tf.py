"""Batch mode: a TensorFlow cluster inside a Flink job, which reads TFRecord files.

The chief drives two workers and a parameter server with TensorFlow's own
`ParameterServerStrategy` and `ClusterCoordinator`; an evaluator looks at each checkpoint. The
files hold scikit-learn's handwritten digits (1,797 images of 8 x 8). Run it with
`python -m examples.digits_batch_tf`; it ends with code 0 if more than 95 % of the held-out
images are read right.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

import headrace.tensorflow
from headrace.tensorflow import TFContext

__all__ = ["evaluate", "lead", "main", "write_files"]

_FILES = 8
_HELD_OUT_FILE = "held-out.tfrecord"
_HELD_OUT_ROWS = 360
_LEAST_ACCURACY = 0.95
_STEPS_PER_EPOCH = 45  # of 32 images: all 1,437 once
_COLUMNS = {
    "image": tf.io.FixedLenFeature([64], tf.float32),
    "label": tf.io.FixedLenFeature([], tf.int64),
}


def write_files(directory: Path) -> None:
    """Write the images as TFRecord files into `directory`: eight to train on, one held out."""
    directory.mkdir(parents=True, exist_ok=True)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    held_out, training = order[:_HELD_OUT_ROWS], order[_HELD_OUT_ROWS:]
    parts = {
        f"part-{number}.tfrecord": part
        for number, part in enumerate(np.array_split(training, _FILES))
    }
    for name, rows in {**parts, _HELD_OUT_FILE: held_out}.items():
        with tf.io.TFRecordWriter(str(directory / name)) as file:
            for row in rows:
                file.write(_example(digits.data[row] / 16, int(digits.target[row])))


def build_model() -> keras.Model:
    """Return the network, untrained."""
    return keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)]
    )


def lead(ctx: TFContext, *, directory: Path, epochs: int) -> None:
    """Train as the chief: schedule steps on the workers, and save a checkpoint each epoch.

    As in TensorFlow's guide to parameter server training with a custom loop; `TF_CONFIG` is
    set, and every process' port is kept for it.
    """
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    with strategy.scope():
        model = build_model()
        optimizer = keras.optimizers.Adam(3e-3)
        optimizer.build(model.trainable_variables)

    @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
    def dataset_of_worker() -> Any:
        return strategy.distribute_datasets_from_function(lambda _: read_training(directory))

    @tf.function  # type: ignore[untyped-decorator] # TensorFlow has no types
    def step(rows: Any) -> Any:
        def on_worker(images: Any, labels: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = _loss(labels, model(images, training=True))
            gradients = tape.gradient(loss, model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
            return loss

        return strategy.run(on_worker, args=next(rows))

    rows = iter(coordinator.create_per_worker_dataset(dataset_of_worker))
    for epoch in range(epochs):
        losses = [coordinator.schedule(step, args=(rows,)) for _ in range(_STEPS_PER_EPOCH)]
        coordinator.join()
        ctx.report(epoch=epoch, loss=np.mean([loss.fetch() for loss in losses]))
        with ctx.checkpoint_path(epoch, keep=3) as path:
            tf.train.Checkpoint(model=model).write(str(path / "model"))
    ctx.save(model, "model.weights.h5")


def evaluate(ctx: TFContext, *, directory: Path) -> None:
    """Report the accuracy of each checkpoint, until the job ends."""
    model = build_model()
    rows = read(directory / _HELD_OUT_FILE).batch(_HELD_OUT_ROWS)
    for epoch, path in ctx.follow_checkpoints():
        tf.train.Checkpoint(model=model).read(str(path / "model")).expect_partial()
        ctx.report(epoch=epoch, accuracy=_accuracy(model, rows))


def read(*files: Path) -> tf.data.Dataset:
    """Return the images (64,) and labels () of the files, one by one."""
    records = tf.data.TFRecordDataset([str(file) for file in files])
    columns = records.map(lambda record: tf.io.parse_single_example(record, _COLUMNS))
    return columns.map(lambda column: (column["image"], column["label"]))


def read_training(directory: Path) -> tf.data.Dataset:
    """Return batches without end: every worker draws from all files, in an order of its own."""
    rows = read(*sorted(directory.glob("part-*.tfrecord")))
    return rows.shuffle(2000).repeat().batch(32).prefetch(2)


def main(argv: list[str] | None = None) -> int:
    """Write the files, train on them in a Flink job, and read the held-out digits.

    Returns:
        Exit code: 0 if the model is good enough.
    """
    parser = argparse.ArgumentParser(prog="python -m examples.digits_batch_tf")
    parser.add_argument("--workers", type=int, default=2, help="TensorFlow workers")
    parser.add_argument("--epochs", type=int, default=20, help="passes over the files")
    parser.add_argument("--out", type=Path, default=Path("out/digits_batch_tf"))
    options = parser.parse_args(argv)
    out: Path = options.out.resolve()
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    write_files(out / "digits")
    plan = headrace.tensorflow.train(
        None,
        headrace.tensorflow.serve,  # what a worker does when a chief drives it
        workers=options.workers,
        ps=1,
        chief=functools.partial(lead, directory=out / "digits", epochs=options.epochs),
        evaluator=functools.partial(evaluate, directory=out / "digits"),
        output_dir=out,
        checkpoint_dir=out / "checkpoints",
        name="digits",
    )
    result = plan.submit().wait()
    nodes = result.status.nodes
    print(f"the chief's last report: {nodes['chief-0'].report}")
    print(f"the evaluator's last report: {nodes['evaluator-0'].report}")
    model = build_model()
    model.load_weights(out / "model.weights.h5")
    held_out = read(out / "digits" / _HELD_OUT_FILE).batch(_HELD_OUT_ROWS)
    accuracy = _accuracy(model, held_out)
    print(f"held-out accuracy: {accuracy:.1%} of {_HELD_OUT_ROWS} digits; see {out}")
    return 0 if accuracy > _LEAST_ACCURACY else 1


def _example(image: Any, label: int) -> bytes:
    columns = {
        "image": tf.train.Feature(float_list=tf.train.FloatList(value=image)),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=columns))
    return bytes(example.SerializeToString())


def _loss(labels: Any, scores: Any) -> Any:
    losses = keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True)
    return tf.reduce_mean(losses)


def _accuracy(model: keras.Model, rows: tf.data.Dataset) -> float:
    right = [tf.argmax(model(images), axis=1) == labels for images, labels in rows]
    return float(np.mean(np.concatenate(right)))


if __name__ == "__main__":
    sys.exit(main())
