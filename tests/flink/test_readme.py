"""The examples in README and guides, run as they stand."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import torch

from headrace._environ import copy_environment
from tests.samples import DOCUMENTS, ROOT, samples

from .training_jobs import read_rows

GUIDES = ("roles", "predict", "sql", "estimators", "tfrecord", "tensorflow", "checkpoints")
BEGIN = "=== guide "
ONE_AFTER_THE_OTHER = f"""
import runpy
import sys

for name in sys.argv[1:]:
    print({BEGIN!r} + name)
    runpy.run_path(f"example_{{name}}.py", run_name="__main__")
"""


def examples(document: str) -> list[str]:
    return samples(document, "python")


def run_program(program: Path, *arguments: str | Path) -> str:
    done = subprocess.run(
        [sys.executable, "-u", str(program), *map(str, arguments)],
        cwd=program.parent,
        env={**copy_environment(), "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def write_program(document: str, folder: Path) -> Path:
    program = folder / f"example_{Path(document).stem}.py"  # never the name of a library
    program.write_text("\n\n".join(examples(document)))
    return program


@dataclass(frozen=True, slots=True, kw_only=True)
class GuideRun:
    """What became of the guides.

    Attributes:
        folder: Where they have run.
        printed: What each has printed, by the name of its document.
    """

    folder: Path
    printed: dict[str, str]


@pytest.fixture(scope="module")
def guides(tmp_path_factory: pytest.TempPathFactory) -> GuideRun:
    """The guides one after the other in one JVM, each a `__main__` of its own."""
    folder = tmp_path_factory.mktemp("guides")
    for name in GUIDES:
        write_program(f"docs/guide/{name}.md", folder)
    driver = folder / "all_guides.py"
    driver.write_text(ONE_AFTER_THE_OTHER)
    parts = run_program(driver, *GUIDES).split(BEGIN)[1:]
    return GuideRun(folder=folder, printed=dict(part.split("\n", 1) for part in parts))


def load_weights(folder: Path) -> list[np.ndarray[Any, Any]]:
    model = keras.models.load_model(folder / "model.keras", compile=False)
    return list(model.get_weights())


def test_every_document_with_whole_examples_is_run() -> None:
    with_examples = {each for each in DOCUMENTS if examples(each)}
    assert with_examples == {"README.md", *(f"docs/guide/{name}.md" for name in GUIDES)}


def test_the_example_has_about_thirty_lines() -> None:
    assert 20 <= len(examples("README.md")[0].splitlines()) <= 36


@pytest.mark.timeout(300)
def test_the_examples_train_on_every_row_and_find_the_weights(tmp_path: Path) -> None:
    assert "20000 rows" in run_program(write_program("README.md", tmp_path))
    in_pytorch = torch.load(tmp_path / "trained" / "model.pt")["weight"]
    assert torch.allclose(in_pytorch, torch.tensor([[3.0, -1.0]]), atol=0.05), in_pytorch
    in_tensorflow = load_weights(tmp_path / "trained")[0]
    assert np.allclose(in_tensorflow, [[3.0], [-1.0]], atol=0.05), in_tensorflow


@pytest.mark.timeout(600)  # the first of them waits for all
def test_the_example_of_roles_keeps_the_rows_that_one_role_wants_of_the_other(
    guides: GuideRun,
) -> None:
    printed = guides.printed["roles"]
    assert "4 rows" in printed
    assert sorted(re.findall(r"\+I\[.*?\]", printed)) == ["+I[5, 0.5]", "+I[9, 0.9]"]


@pytest.mark.timeout(600)
def test_the_example_of_scoring_scores_what_can_be(guides: GuideRun) -> None:
    printed = guides.printed["predict"]
    lines = [line for line in printed.splitlines() if "+I" in line]
    rows = sorted(re.split(r"\s*\|\s*", line) for line in lines)
    assert [row[2] for row in rows] == ["1", "2", "3"]
    assert [row[5] == "<NULL>" for row in rows] == [False, True, False]
    assert [row[6] for row in rows] == ["<NULL>", "departs is NULL", "<NULL>"]


@pytest.mark.timeout(600)
def test_the_examples_of_checkpoints_train_on_every_row_once_go_on_and_serve(
    guides: GuideRun,
) -> None:
    printed = guides.printed["checkpoints"]
    assert "2000 rows" in printed
    assert (guides.folder / "kept" / "model.pt").exists()
    stops = re.findall(r"^stopped: (\d+) (.*)$", printed, re.MULTILINE)
    of_first, of_second = (int(rows) for rows, _ in stops)
    first, second = (ast.literal_eval(report) for _, report in stops)
    assert (first["rows"], first["last_id"]) == (of_first, of_first)
    assert (second["rows"], second["last_id"]) == (of_first + of_second,) * 2
    assert min(of_first, of_second) >= 1000
    weight, bias = load_weights(guides.folder / "keras")
    assert np.allclose(weight, 2, atol=0.2), weight
    assert np.allclose(bias, 0, atol=0.2), bias
    answers = read_rows(guides.folder / "answers")
    ids = sorted(row["id"] for row in answers)
    assert ids == list(range(1, len(ids) + 1))
    versions = sorted({row["version"] for row in answers})
    assert len(versions) > 1, "initial, and one of a checkpoint"
    kept = [
        sorted(row["y"] for row in answers if row["version"] == version)
        for version in (versions[0], versions[-1])
    ]
    assert kept[0] != kept[1]
    assert len(list((guides.folder / "served").glob("checkpoint-*.pt"))) == 3


@pytest.mark.timeout(600)
def test_the_example_of_sql_trains_and_scores(guides: GuideRun) -> None:
    printed = guides.printed["sql"]
    rows = [re.findall(r"[^|\s]+", line) for line in printed.splitlines() if "+I" in line]
    found = {int(row[1]): float(row[2]) for row in rows}
    scores = {n: 3 * math.sin(n) - math.cos(n) for n in (1, 2, 3)}
    assert found == pytest.approx(scores, abs=0.1)


@pytest.mark.timeout(600)
def test_the_example_of_estimators_trains_saves_and_scores(guides: GuideRun) -> None:
    printed = guides.printed["estimators"]
    told = re.search(r"epochs (\d+) mae (\S+)", printed)
    assert told is not None, printed
    assert 3 <= int(told[1]) <= 20
    assert float(told[2]) < 0.05
    rows = [re.findall(r"[^|\s]+", line) for line in printed.splitlines() if "+I" in line]
    late = {int(row[1]): float(row[4]) for row in rows}
    wanted = {n: 3 * math.sin(n) - math.cos(n) for n in range(3)}
    assert late == pytest.approx(wanted, abs=0.1)
    assert sorted(path.name for path in (guides.folder / "delays").iterdir()) == [
        "estimator.pkl",
        "history.json",
        "model.pt",
    ]


@pytest.mark.timeout(600)
def test_the_example_of_record_files_reads_what_it_has_written(guides: GuideRun) -> None:
    printed = guides.printed["tfrecord"]
    rows = [re.findall(r"[^|\s]+", line) for line in printed.splitlines() if "+I" in line]
    assert rows == [
        ["+I", "1", "12.5", "<NULL>"],
        ["+I", "2", "-3.0", "<NULL>"],
        ["+I", "-6.0"],
    ]


@pytest.mark.timeout(600)
def test_the_examples_of_tensorflow_find_the_weights_in_all_four_ways(
    guides: GuideRun,
) -> None:
    assert len(examples("docs/guide/tensorflow.md")) == 4
    printed = guides.printed["tensorflow"]
    assert "on servers: 20000 rows" in printed
    assert "together: 20000 rows" in printed
    for name in ("on-servers", "together"):
        weights, bias = load_weights(guides.folder / name)
        assert np.allclose(weights, [[3.0], [-1.0]], atol=0.05), (name, weights)
        assert np.allclose(bias, 0, atol=0.05), (name, bias)
    assert "mirrored: {'a': 3.0, 'b': -1.0}" in printed
    assert "watched: evaluator-0 asked to stop: good enough" in printed
    logs = {path.parent.name for path in (guides.folder / "watched" / "logs").rglob("events.*")}
    assert logs == {"evaluator-0", "worker-0"}
