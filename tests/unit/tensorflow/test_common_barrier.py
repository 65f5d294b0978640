"""TensorFlow workers answer a barrier at one common step, whoever asks for the rows."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from headrace.exchange import Barrier, Batch, End, Item
from headrace.testing import RunResult
from headrace.testing.feed import TableFeed
from headrace.testing.worker import FedEntry
from tests.unit.tensorflow.scenarios import Scenario, Steps, run_all

pytestmark = [
    pytest.mark.timeout(600),  # the first test waits for all scenarios
    # Keras 3.15 says so at the end of each pass over a dataset whose length is unknown.
    pytest.mark.filterwarnings("ignore:Your input ran out of data:UserWarning"),
]

ROWS_BEFORE = ({3: 16, 4: 40}, {3: 8, 4: 8})
"""By worker: how many rows come before the barrier of each checkpoint."""

AT_LAST = 9
"""A checkpoint whose barrier comes behind the input."""


class BarrierFeed(TableFeed):
    """A table with barriers in it."""

    rows_before: dict[int, int]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._rows = 0
        self._ready: Item | None = None
        self._has_ended = False
        self._is_last_due = True

    def receive(self, *, timeout_s: float | None, says_idle: bool = True) -> Item | None:
        for checkpoint, rows in self.rows_before.items():
            if self._rows >= rows:
                del self.rows_before[checkpoint]
                return Barrier(checkpoint)
        if self._has_ended and self._is_last_due:
            self._is_last_due = False
            return Barrier(AT_LAST)
        item = super().receive(timeout_s=timeout_s)
        if isinstance(item, Batch):
            self._rows += item.columns.num_rows
        self._has_ended = self._has_ended or isinstance(item, End)
        return item


class BarrierEntry(FedEntry):
    """Feeds a worker with its table and its barriers."""

    def _feed(self, index: int) -> TableFeed:
        assert self.tables is not None
        feed = BarrierFeed(
            self.tables[index], output_schema=self.output_schema, batch_rows=self.batch_rows
        )
        feed.rows_before = dict(ROWS_BEFORE[index])
        return feed


def note_answers(ctx: Any) -> None:
    """Report at each answer the step, and the bits of what `ctx.data_parallel` was given."""
    given: list[Any] = []
    begin = ctx.data_parallel

    def data_parallel(model: Any, optimizer: Any = None, **how: Any) -> Any:
        given[:] = [model, optimizer or model.optimizer]
        return begin(model, optimizer, **how)

    def capture(checkpoint: int | None) -> None:
        if checkpoint is None:
            return
        model, optimizer = given
        held = [np.array(v.numpy()) for v in (*model.variables, *optimizer.variables)]
        bits = zlib.crc32(b"".join(each.tobytes() for each in held))
        ctx.report(**{f"step {checkpoint}": ctx.steps, f"bits {checkpoint}": bits})

    ctx.data_parallel = data_parallel
    ctx._barriers._capture = capture


_BASE = Scenario(recipe="adam", split=[0.7, 0.3], fed=BarrierEntry, on_start=note_answers)
SCENARIOS = {
    **{
        loader: replace(_BASE, loader=loader)
        for loader in ("fit-1", "fit-10", "dataset", "batches")
    },
    "momentum": replace(_BASE, recipe="momentum"),
    "normalised": replace(_BASE, recipe="normalised", split=[0.75, 0.25], total_rows=96),
    "epochs": replace(_BASE, epochs=2),
    "leaves": replace(_BASE, loader="batches", leave_after=(1, None)),
}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, RunResult]:
    before = keras.config.floatx()
    keras.config.set_floatx("float64")
    try:
        return run_all(SCENARIOS, workers=2, directory=tmp_path_factory.mktemp("barriers"))
    finally:
        keras.config.set_floatx(before)


@pytest.mark.parametrize("name", SCENARIOS)
def test_workers_answer_at_one_step_with_the_same_bits(
    results: Mapping[str, RunResult], name: str
) -> None:
    one, two = (worker.report for worker in results[name].workers)
    for checkpoint in (3, 4, AT_LAST):
        for what in ("step", "bits"):
            assert one[f"{what} {checkpoint}"] == two[f"{what} {checkpoint}"]
    assert 0 < one["step 3"] <= one["step 4"] <= one[f"step {AT_LAST}"]


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"leaves", "epochs"}))
def test_a_barrier_is_answered_when_the_steps_on_the_rows_before_it_were_made(
    results: Mapping[str, RunResult], name: str
) -> None:
    steps = Steps.of(results[name])
    for checkpoint in (3, 4):
        at = results[name].workers[0].report[f"step {checkpoint}"]
        for worker, rows_before in enumerate(ROWS_BEFORE):
            made = [len(parts[worker]) for step, parts in steps.parts.items() if step <= at]
            assert sum(made) == rows_before[checkpoint]
