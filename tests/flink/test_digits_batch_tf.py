"""The batch example in TensorFlow."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tensorflow as tf

from examples.digits_batch_tf import main


@pytest.mark.timeout(400)
def test_a_chief_two_workers_a_ps_and_an_evaluator_learn_to_read_digits_from_tfrecord_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path)]) == 0, capsys.readouterr()
    said = capsys.readouterr().out
    files = [str(path) for path in (tmp_path / "digits").glob("part-*.tfrecord")]
    assert sum(1 for _ in tf.data.TFRecordDataset(files)) == 1797 - 360
    accuracy = re.search(r"held-out accuracy: ([\d.]+)% of 360", said)
    assert accuracy is not None
    assert float(accuracy[1]) > 95
    chief = re.search(r"chief's last report: .*'epoch': (\d+)", said)
    assert chief is not None
    assert int(chief[1]) == 19
    watched = re.search(r"evaluator's last report: .*'accuracy': ([\d.]+)", said)
    assert watched is not None
    assert float(watched[1]) > 0.8
