"""Versions that come faster than they settle or load are taken over all the same."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.exchange import MemoryFeed
from headrace.inference import PythonModel, ScoringEntry, ScoringSettings
from headrace.inference.successor import SuccessorLoader
from headrace.inference.version import ModelVersion, version_at
from headrace.role.export_dir import ExportDirectory
from tests.unit.role.doubles import FakeLink, spec_in
from tests.waiting import until

LOAD_S = 0.2
INTERVAL_S = 0.05
LOOK_S = 1.0  # so the time in which a change settles is a second


def opened(directory: Path, *, keep: int = 3) -> ExportDirectory:
    place = ExportDirectory(directory, suffix=".txt", keep=keep)
    place.open()
    put(place, 0)
    return place


def put(place: ExportDirectory, number: int) -> Path:
    return place.put(f"checkpoint-{number}", lambda path: path.write_text(str(number)))


@contextmanager
def training(place: ExportDirectory) -> Iterator[None]:
    """A version each INTERVAL_S."""
    is_over = threading.Event()

    def write() -> None:
        number = 0
        while not is_over.wait(INTERVAL_S):
            number += 1
            put(place, number)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


@pytest.mark.parametrize("keep", [1, 100])
def test_each_look_takes_a_version_though_the_link_never_stands(
    tmp_path: Path, keep: int
) -> None:
    place = opened(tmp_path, keep=keep)

    def load(version: ModelVersion) -> tuple[str, str]:
        name, text = version.place.stem, version.place.read_text()
        threading.Event().wait(LOAD_S)
        return name, text

    with (
        training(place),
        SuccessorLoader(
            place.latest, load, present=version_at(place.latest), every_s=LOOK_S
        ) as successors,
    ):
        taken = [until(successors.take, "a new version", limit_s=20) for _ in range(2)]
        assert successors.rejected == 0
    numbers = [int(text) for _, text in taken]
    assert [name for name, _ in taken] == [f"checkpoint-{number}" for number in numbers]
    assert 0 < numbers[0] < numbers[1], "of each time the newest"


def test_what_is_removed_before_it_is_read_is_followed_by_the_next_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = opened(tmp_path, keep=1)
    loads: list[str] = []

    def load(version: ModelVersion) -> str:
        loads.append(version.place.stem)
        if len(loads) < 4:
            put(place, len(loads) + 1)
        return version.place.read_text()

    with (
        caplog.at_level(logging.WARNING),
        SuccessorLoader(
            place.latest, load, present=version_at(place.latest), every_s=LOOK_S
        ) as successors,
    ):
        put(place, 1)
        assert until(successors.take, "the version that stayed", limit_s=3 * LOOK_S) == "4"
        assert successors.rejected == 0
    assert loads == [f"checkpoint-{number}" for number in (1, 2, 3, 4)]
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert f"3 versions of {place.latest} running were replaced or removed" in told[0]
    assert "checkpoint-3.txt was the last" in told[0]


def test_a_process_that_starts_reads_another_one_where_the_first_is_removed(
    tmp_path: Path,
) -> None:
    place = opened(tmp_path / "served", keep=1)
    reads: list[str] = []

    def factory(path: Path) -> Callable[..., Any]:
        if not reads:
            put(place, 7)
        reads.append(path.stem)
        factor = int(path.read_text())
        return lambda columns: {"y": columns["x"] * factor}

    rows = MemoryFeed.of_table(
        pa.table({"x": [1, 2]}), output_schema=pa.schema([("y", pa.int64())])
    )
    settings = ScoringSettings(kept=(), outputs=("y",), reload="path changes")
    entry = ScoringEntry(PythonModel(factory, place.latest), settings)
    entry(spec_in(tmp_path), FakeLink(), feed=rows)
    assert rows.output["y"].to_pylist() == [7, 14]
    assert reads == ["checkpoint-0", "checkpoint-7"]


def test_a_link_of_another_kind_is_read_by_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "blob-1").write_text("x")
    link = tmp_path / "model.keras"
    link.symlink_to("blob-1")
    found = version_at(link)
    assert found is not None
    assert found.place == link
    assert found.stands
