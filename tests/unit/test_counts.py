"""One rule for the counts that users give, wherever they give them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from headrace._counts import require_bounds, require_count
from headrace.config import AMConfig, ExchangeConfig, RoleConfig
from headrace.errors import ConfigError
from headrace.exchange import MemoryFeed
from headrace.pytorch import TorchSettings, train
from headrace.role import InputEnded, ReadyBatch, RoleContext, RoleEntry
from headrace.role.reader import BatchReader
from headrace.role.saved import new_saved
from headrace.testing import Kill, Pause, run

TABLE = pa.table({"x": [1, 2, 3]})
NO_COUNTS: list[Any] = [-1, True, np.bool_(True), 2.0, np.float64(2), "2", None]
IDLE = RoleEntry(lambda _: None)


def read(spool_dir: Path, **counts: Any) -> BatchReader:
    feed = MemoryFeed.of_table(TABLE)
    return BatchReader(feed, spool_dir=spool_dir, **{"rows": 1, "epochs": 1, **counts})


def again(epochs: Any) -> None:
    def whole(ctx: RoleContext) -> None:
        list(ctx.batches(1))
        list(ctx.batches(1, epochs))

    run(RoleEntry(whole), TABLE)


PLACES: list[tuple[str, Callable[[Any, Path], object]]] = [
    ("exchange.slots", lambda value, _: ExchangeConfig(slots=value)),
    ("am.max_restarts", lambda value, _: AMConfig(max_restarts=value)),
    ("role.parallelism", lambda value, _: RoleConfig(entry=IDLE, parallelism=value)),
    ("epochs", lambda value, _: TorchSettings(epochs=value)),
    ("rows", lambda value, path: read(path, rows=value)),
    ("epochs", lambda value, path: read(path, epochs=value).close()),
    ("step", lambda value, path: save(path, value)),
    ("workers", lambda value, _: run(IDLE, TABLE, workers=value)),
    ("epochs", lambda value, _: run(IDLE, TABLE, epochs=value)),
    ("batch_rows", lambda value, _: run(IDLE, TABLE, batch_rows=value)),
    ("Pause.worker", lambda value, _: Pause(worker=value, after_rows=0, for_s=0)),
    ("Kill.after_rows", lambda value, _: Kill(worker=0, after_rows=value)),
]


def save(directory: Path, step: Any) -> None:
    with new_saved(directory, step, 1, node="worker-0") as path:
        path.touch()


@pytest.mark.parametrize(("name", "give"), PLACES)
def test_what_is_no_count_is_refused_everywhere_with_its_value(
    tmp_path: Path, name: str, give: Callable[[Any, Path], object]
) -> None:
    for value in NO_COUNTS:
        with pytest.raises(ConfigError) as caught:
            give(value, tmp_path)
        assert str(caught.value).startswith(f"{name}={value!r} must be a whole number ")


@pytest.mark.parametrize(("name", "give"), PLACES)
@pytest.mark.parametrize("kind", [int, np.int32, np.uint8])
def test_a_numpy_integer_is_a_count_everywhere(
    tmp_path: Path, name: str, give: Callable[[Any, Path], object], kind: Callable[[int], Any]
) -> None:
    give(kind(2), tmp_path)


@pytest.mark.parametrize("value", [0, *NO_COUNTS])
@pytest.mark.parametrize("name", ["workers", "epochs"])
def test_training_is_planned_with_counts_only(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}=.* whole number of at least 1; try [12]$"):
        train(None, lambda _: None, **{name: value})


@pytest.mark.parametrize("value", NO_COUNTS[1:])
def test_a_second_loop_over_the_input_knows_a_count_as_well(value: Any) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        again(value)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_rows_and_epochs_of_small_numpy_integers_read_every_row(
    tmp_path: Path, kind: Callable[[int], Any]
) -> None:
    reader = read(tmp_path, rows=kind(2), epochs=kind(2))
    got = []
    while not isinstance(result := reader.poll(0), InputEnded):
        if isinstance(result, ReadyBatch):
            got += result.columns["x"].to_pylist()
    assert got == [1, 2, 3, 1, 2, 3]


def test_counts_of_settings_travel_as_json() -> None:
    exchange = ExchangeConfig(slots=np.int64(4), linger_ms=np.int64(0))  # type: ignore[arg-type]
    assert json.loads(json.dumps(asdict(exchange)))["slots"] == 4


def test_the_error_offers_the_nearest_count() -> None:
    inf = float("inf")
    for value, nearest in ((0, 1), (9, 8), (1.5, 1), (2.0, 2), (16.0, 8), (inf, 1), ("3", 1)):
        with pytest.raises(ConfigError, match=rf"from 1 to 8; try {nearest}$"):
            require_count("n", value, most=8)
    assert require_count("n", np.int8(8), most=8) == 8


def test_bounds_are_a_count_or_a_pair_in_order() -> None:
    assert require_bounds("workers", 3) == (3, 3)
    assert require_bounds("workers", (1, 4)) == (1, 4)
    for bad, told in (
        ((4, 1), r"workers\[0\]=4 .* from 1 to 1; try 1"),
        ((1, 2, 3), r"a pair of the least and the largest"),
        ((0, 2), r"workers\[0\]=0 "),
        ((1, 0), r"workers\[1\]=0 "),
        (0, r"workers=0 "),
    ):
        with pytest.raises(ConfigError, match=told):
            require_bounds("workers", bad)
