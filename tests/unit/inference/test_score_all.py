"""The loop around the model: what runs at the same time, and what holds in spite of it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from headrace.errors import DataError
from headrace.exchange import Barrier, Batch, End, Item, MemoryFeed, Watermark
from headrace.inference import PythonModel, ScoringEntry, ScoringSettings
from headrace.pytorch import TorchModel
from headrace.role import RoleContext
from tests.unit.role.doubles import FakeLink, spec_in

ROWS = 4
PATIENCE_S = 30


def batch(number: int, *, null: bool = False) -> Batch:
    xs: list[float | None] = [float(number * ROWS + n) for n in range(ROWS)]
    if null:
        xs[1] = None
    return Batch(pa.record_batch([pa.array(xs, pa.float32())], names=["x"]))


def feed_of(items: Iterable[Item]) -> MemoryFeed:
    schemas = pa.schema([("x", pa.float32())]), pa.schema([("y", pa.float32())])
    return MemoryFeed([*items, End()], input_schema=schemas[0], output_schema=schemas[1])


def run(
    feed: MemoryFeed,
    function: Callable[..., Any],
    *,
    link: FakeLink | None = None,
    inputs: Any = "x",
    **settings: Any,
) -> list[float | None]:
    """What comes out of a worker that scores `feed` with `function`."""
    chosen = ScoringSettings(
        kept=(), outputs=("y",), inputs=inputs, batch_rows=ROWS, **settings
    )
    entry = ScoringEntry(PythonModel(lambda: function), chosen)
    entry(spec_in(Path()), link or FakeLink(), feed=feed)
    return list(feed.output["y"].to_pylist())


def expected(numbers: Iterable[int]) -> list[float]:
    return [0.5 * (number * ROWS + n) for number in numbers for n in range(ROWS)]


def half(x: Any) -> Any:
    return x * np.float32(0.5)


def test_the_next_batch_is_made_ready_while_the_model_works_on_one() -> None:
    numbers = range(5)
    made_ready = [threading.Event() for _ in numbers]
    calls: list[bool] = []

    def prepare(columns: Any) -> Any:
        made_ready[int(columns["x"][0]) // ROWS].set()
        return columns["x"]

    def call(x: Any) -> Any:
        following = len(calls) + 1
        calls.append(following < len(numbers) and made_ready[following].wait(PATIENCE_S))
        return half(x)

    assert run(feed_of(map(batch, numbers)), call, inputs=prepare) == expected(numbers)
    assert calls == [True, True, True, True, False]


def test_barriers_and_watermarks_come_behind_the_rows_that_stood_before_them() -> None:
    items: list[Item] = []
    for number in range(8):
        items.append(batch(number))
        if number % 3 == 0:
            items.append(Watermark(number))
        if number % 3 == 1:
            items.append(Barrier(checkpoint_id=number))
    feed = feed_of(items)
    assert run(feed, half) == expected(range(8))
    assert feed.acknowledged == [(n, (n + 1) * ROWS) for n in (1, 4, 7)]
    sent = dict(feed.watermarks_ms)
    assert {n: sent[n] for n in (0, 3, 6)} == {n: (n + 1) * ROWS for n in (0, 3, 6)}


def returns_one_array() -> Callable[..., Any]:
    scores = np.empty(ROWS, np.float32)
    return lambda x: np.multiply(x, np.float32(0.5), out=scores)


def returns_its_views() -> Callable[..., Any]:
    scores = np.empty((ROWS, 2), np.float32)

    def call(x: Any) -> Any:
        scores[:, 0] = x * 0.5
        return {"y": scores[:, :1]}

    return call


def returns_arrow_over_its_memory() -> Callable[..., Any]:
    scores = np.empty(ROWS, np.float32)

    def call(x: Any) -> Any:
        return (pa.array(np.multiply(x, np.float32(0.5), out=scores)),)

    return call


@pytest.mark.parametrize(
    "make", [returns_one_array, returns_its_views, returns_arrow_over_its_memory]
)
@pytest.mark.parametrize("on_error", ["fail", "null"])
def test_a_model_may_return_the_same_memory_again_and_again(
    make: Callable[[], Callable[..., Any]], on_error: str
) -> None:
    numbers = range(20)
    scores = run(feed_of(map(batch, numbers)), make(), on_error=on_error)
    assert scores == expected(numbers)


class WithBuffer(torch.nn.Module):
    """A module whose output is a buffer of it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scores", torch.empty(ROWS))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert isinstance(self.scores, torch.Tensor)
        return self.scores[: len(x)].copy_(x * 0.5)


def test_a_module_may_return_its_buffer(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save(WithBuffer().state_dict(), path)
    feed = feed_of(map(batch, range(20)))
    settings = ScoringSettings(kept=(), outputs=("y",), inputs="x", batch_rows=ROWS)
    ScoringEntry(TorchModel(path, WithBuffer), settings)(
        spec_in(tmp_path), FakeLink(), feed=feed
    )
    assert feed.output["y"].to_pylist() == expected(range(20))


def test_what_fails_first_is_raised_although_the_next_batch_fails_earlier() -> None:
    has_failed = threading.Event()

    def prepare(columns: Any) -> Any:
        if columns["x"][0] > 0:
            has_failed.set()
            raise KeyError
        return columns["x"]

    def call(x: Any) -> Any:
        assert has_failed.wait(PATIENCE_S)
        msg = "root cause"
        raise ValueError(msg)

    with pytest.raises(ValueError, match="root cause"):
        run(feed_of(map(batch, range(3))), call, inputs=prepare)


def test_rows_before_a_batch_that_cannot_go_in_are_emitted() -> None:
    feed = feed_of([batch(0), batch(1), batch(2, null=True), batch(3)])
    with pytest.raises(DataError, match="'x' has 1 NULL in 4 rows"):
        run(feed, half)
    assert feed.output["y"].to_pylist() == expected(range(2))


def test_reports_go_out_while_batches_lie_ready_all_the_time() -> None:
    link = FakeLink()

    def call(x: Any) -> Any:
        threading.Event().wait(0.02)
        return half(x)

    run(feed_of(map(batch, range(40))), call, link=link)  # at least 0.8 s
    told = [rows for _, rows, _ in link.reports]
    assert len(told) >= 3, told
    assert told[-1] == 40 * ROWS


def test_rows_without_scores_of_a_version_count_also_when_the_next_has_taken_over() -> None:
    class Entry(ScoringEntry):
        """Takes over a new version before every batch."""

        def run(self, context: RoleContext) -> None:
            context.between_batches = lambda: self._renew(context)  # type: ignore[attr-defined]
            self._score_all(context)

        def _renew(self, context: RoleContext) -> None:
            self._scorer = self._load(context, None, None)

    settings = ScoringSettings(
        kept=(), outputs=("y",), inputs="x", batch_rows=ROWS, on_error="null"
    )
    feed = feed_of(batch(number, null=True) for number in range(10))
    link = FakeLink()
    Entry(PythonModel(lambda: half), settings)(spec_in(Path()), link, feed=feed)
    assert feed.output["y"].null_count == 10
    assert link.reports[-1][0] == {"rows_without_scores": 10.0}


def limit_blas(threads: int) -> None:
    """On a thread that ends: the first thread alone can do it as long as it lives."""
    thread = threading.Thread(target=threadpool_limits, args=(threads,))
    thread.start()
    thread.join()


def test_threads_hold_for_the_libraries_of_a_python_model() -> None:
    seen: list[int] = []

    def call(x: Any) -> Any:
        seen.extend(pool["num_threads"] for pool in threadpool_info())
        return half(x)

    limit_blas(2)
    run(feed_of([batch(0)]), call, threads=1)
    limit_blas(2)
    assert seen
    assert set(seen) == {1}
