"""Who scores with whatever comes to a path waits for what comes first, and not for ever."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from headrace.config import TimeoutConfig
from headrace.errors import WaitTimeoutError
from headrace.exchange import MemoryFeed
from headrace.framework.stopping import StopRequestedExit
from headrace.inference import PythonModel, ScoringEntry, ScoringSettings
from tests.unit.role.doubles import FakeLink, spec_in

SCHEMA = pa.schema([("x", pa.int64())])
Y = pa.schema([("y", pa.int64())])


def factory(path: Path) -> Any:
    factor = int(path.read_text())
    return lambda columns: {"y": columns["x"] * factor}


def limits(limit_s: float) -> TimeoutConfig:
    half_s = limit_s / 2  # of each of the two, which are added
    return TimeoutConfig(gather_timeout_s=half_s, process_start_timeout_s=half_s)


def score(folder: Path, *, limit_s: float, feed: type[MemoryFeed] = MemoryFeed) -> Any:
    path = folder / "latest"
    settings = ScoringSettings(kept=(), outputs=("y",), reload="path changes")
    rows = feed.of_table(pa.table({"x": [1, 2]}, schema=SCHEMA), output_schema=Y)
    spec = spec_in(folder, timeouts=limits(limit_s))
    ScoringEntry(PythonModel(factory, path), settings)(spec, FakeLink(), feed=rows)
    return rows.output["y"].to_pylist()


def test_rows_are_scored_by_the_version_that_comes_first(tmp_path: Path) -> None:
    path = tmp_path / "latest"

    def write() -> None:
        (tmp_path / "checkpoint-1").write_text("7")
        path.symlink_to("checkpoint-1")

    writer = threading.Timer(0.3, write)
    writer.start()
    assert score(tmp_path, limit_s=20) == [7, 14]
    writer.join()


def test_a_version_that_does_not_come_is_told_with_the_setting(tmp_path: Path) -> None:
    told = (
        r"^Waited 0\.[2-9] s for the first version of the model at .*latest.*gather_timeout_s "
        r"\+ timeouts.process_start_timeout_s.*export_to="
    )
    with pytest.raises(WaitTimeoutError, match=told):
        score(tmp_path, limit_s=0.2)


class Stopped(MemoryFeed):
    """A feed whose process is stopped while it waits."""

    def watch(self, *, timeout_s: float) -> None:
        raise StopRequestedExit


def test_a_process_that_is_stopped_does_not_wait(tmp_path: Path) -> None:
    with pytest.raises(StopRequestedExit):
        score(tmp_path, limit_s=20, feed=Stopped)
