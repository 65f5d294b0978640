"""TensorFlow's side of `benchmarks.tfrecord`, a process of its own; prints JSON with seconds.

Usage: `read FOLDER THREADS` (0: TensorFlow's default), or `write FILE ROWS`.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import tensorflow as tf

_BATCH_ROWS = 8_192
_NAMES = [f"f{i}" for i in range(16)]


def read(folder: Path, threads: int) -> float:
    """Parse all files of a folder in batches and add up what is in them; return the seconds."""
    if threads:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)
    spec = {name: tf.io.FixedLenFeature([], tf.float32) for name in _NAMES}
    files = sorted(str(path) for path in folder.glob("part-*"))
    dataset = tf.data.TFRecordDataset(files).batch(_BATCH_ROWS)
    dataset = dataset.map(lambda records: tf.io.parse_example(records, spec))
    if threads:
        pool = tf.data.Options()
        pool.threading.private_threadpool_size = threads
        dataset = dataset.with_options(pool)
    else:
        dataset = dataset.prefetch(tf.data.AUTOTUNE)
    begin = time.perf_counter()
    total = 0.0
    for batch in dataset:
        total += float(tf.add_n([tf.reduce_sum(column) for column in batch.values()]))
    seconds = time.perf_counter() - begin
    assert total > 0
    return seconds


def write(file: str, rows: int) -> float:
    """Write rows of 16 floats with TensorFlow's own writer; return the seconds."""
    begin = time.perf_counter()
    with tf.io.TFRecordWriter(file) as writer:
        for row in range(rows):
            features = {
                name: tf.train.Feature(float_list=tf.train.FloatList(value=[row + i]))
                for i, name in enumerate(_NAMES)
            }
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return time.perf_counter() - begin


def main() -> None:
    """Do what the command line says."""
    what, path, number = sys.argv[1:]
    seconds = read(Path(path), int(number)) if what == "read" else write(path, int(number))
    print(json.dumps({"seconds": seconds}))


if __name__ == "__main__":
    main()
