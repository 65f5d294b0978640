"""TensorFlow beside the tests: writes and reads TFRecord files as its users do.

A process of its own keeps TensorFlow's threads and warnings out of the process of the tests.
In JSON a feature is `[kind, values]`: bytes in base64, floats as the integers of their bits.
"""

from __future__ import annotations

import base64
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from headrace._environ import copy_environment

__all__ = ["Example", "TensorFlowProcess", "bits", "float_of", "tensorflow_process"]

Example: TypeAlias = dict[str, list[Any]]
"""Feature to its kind ("int64", "float", "bytes", or "" for none) and its values."""

_ROOT = Path(__file__).resolve().parents[2]


def bits(value: float) -> int:
    """Return the bits of a 32-bit float."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def float_of(value: int) -> float:
    """Return the 32-bit float with these bits."""
    return float(struct.unpack("<f", struct.pack("<I", value))[0])


class TensorFlowProcess:
    """The tests' side; one request at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def write(self, path: Path, examples: Sequence[Example], compression: str = "") -> None:
        """Write a file with `tf.io.TFRecordWriter`."""
        coded = [{n: [k, _coded(k, v)] for n, (k, v) in each.items()} for each in examples]
        self._ask(do="write", path=str(path), examples=coded, compression=compression)

    def read(self, paths: Sequence[Path], compression: str = "") -> list[Example]:
        """Read files with `tf.data.TFRecordDataset`."""
        found = self._ask(do="read", paths=[*map(str, paths)], compression=compression)
        return [{n: [k, _decoded(k, v)] for n, (k, v) in each.items()} for each in found]

    def parse(
        self, paths: Sequence[Path], spec: dict[str, tuple[str, bool]]
    ) -> dict[str, list[Any]]:
        """Parse all records with `tf.io.parse_example`; bytes come as text.

        Args:
            paths: The files.
            spec: Feature to the name of its dtype, and whether it is a list (`RaggedFeature`)
                and not one value (`FixedLenFeature`).
        """
        parsed: dict[str, list[Any]] = self._ask(
            do="parse", paths=[*map(str, paths)], compression="", spec=spec
        )
        return parsed

    def _ask(self, **request: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def tensorflow_process() -> Iterator[TensorFlowProcess]:
    """Start the process, and end it."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.flink.tensorflow_process"],
        cwd=_ROOT,
        env={**copy_environment(), "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield TensorFlowProcess(process)
        assert process.stdin is not None
        process.stdin.close()


def _coded(kind: str, values: Sequence[Any]) -> list[Any]:
    if kind == "bytes":
        return [base64.b64encode(value).decode() for value in values]
    if kind == "float":
        return [value if isinstance(value, int) else bits(value) for value in values]
    return list(values)


def _decoded(kind: str, values: list[Any]) -> list[Any]:
    return [base64.b64decode(value) for value in values] if kind == "bytes" else values


def _example(tf: Any, coded: Example) -> bytes:
    features = {}
    for name, (kind, values) in coded.items():
        match kind:
            case "int64":
                feature = tf.train.Feature(int64_list=tf.train.Int64List(value=values))
            case "float":
                numbers = tf.train.FloatList(value=[float_of(value) for value in values])
                feature = tf.train.Feature(float_list=numbers)
            case "bytes":
                texts = [base64.b64decode(value) for value in values]
                feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=texts))
            case _:
                feature = tf.train.Feature()
        features[name] = feature
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return bytes(example.SerializeToString())


def _features(tf: Any, record: bytes) -> Example:
    found: Example = {}
    for name, feature in tf.train.Example.FromString(record).features.feature.items():
        kind = (feature.WhichOneof("kind") or "").removesuffix("_list")
        values = list(getattr(feature, f"{kind}_list").value) if kind else []
        found[name] = [kind, _coded(kind, values)]
    return found


def _parse(tf: Any, dataset: Any, spec: dict[str, list[Any]]) -> dict[str, Any]:
    features = {
        name: tf.io.RaggedFeature(tf.dtypes.as_dtype(dtype))
        if is_list
        else tf.io.FixedLenFeature([], tf.dtypes.as_dtype(dtype))
        for name, (dtype, is_list) in spec.items()
    }
    columns: dict[str, list[Any]] = {name: [] for name in spec}
    for record in dataset:
        for name, value in tf.io.parse_single_example(record, features).items():
            columns[name].append(np.asarray(value.numpy()).tolist())
    return {name: [_plain(value) for value in values] for name, values in columns.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value.decode() if isinstance(value, bytes) else value


def _answer(tf: Any, request: dict[str, Any]) -> Any:
    compression = request["compression"]
    if request["do"] == "write":
        with tf.io.TFRecordWriter(request["path"], compression) as writer:
            for each in request["examples"]:
                writer.write(_example(tf, each))
        return None
    dataset = tf.data.TFRecordDataset(request["paths"], compression_type=compression)
    if request["do"] == "parse":
        return _parse(tf, dataset, request["spec"])
    return [_features(tf, record.numpy()) for record in dataset]


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log
    import tensorflow as tf

    for line in sys.stdin:
        print(json.dumps(_answer(tf, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
