"""Workers that train in common and are killed go on at the step of the checkpoint, all of them.

What they emit goes to files of a transactional sink, so the rows that are there in the end are
those of the steps that count. One process that makes the same steps is what they are held to.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

import headrace.pytorch
from headrace.operator import JobHandle
from tests.waiting import until

from .conftest import MakeEnvironment
from .kept_state import Killer, Turns
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir
from .test_operator_rows import CHECKPOINTS
from .test_training import require_union
from .training_jobs import (
    STEPS,
    add_sink,
    ids_by_step,
    read_rows,
    replay,
    split_rows,
    trainer,
)

ROWS = 3_000
LIMIT_S = 200.0
UNEVEN = "CASE WHEN MOD(id, 10) = 0 THEN 1 ELSE 0 END"
ALL_FOR_ONE = "0"
"""All rows are for worker 0; the other has none, ever."""
EARLY = "CASE WHEN id < 200 THEN MOD(id, 2) ELSE 0 END"
"""Worker 1 has none but some of the first rows."""


def add_slow_numbers(t_env: StreamTableEnvironment, rows: int, per_second: int) -> None:
    """Register the table `numbers`, of wide rows, so that few of them are under way."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT, padding STRING) WITH "
        "('connector'='datagen', 'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.padding.length'='1000', 'fields.id.end'='{rows - 1}', "
        f"'rows-per-second'='{per_second}', 'number-of-rows'='{rows}', 'scan.parallelism'='1')"
    )


def submit(
    t_env: StreamTableEnvironment,
    folder: Path,
    worker: str,
    entry: Callable[[Any], None],
    *,
    rows: int = ROWS,
    per_second: int = 100_000,
    epochs: int = 1,
    workers: int = 2,
) -> JobHandle:
    add_slow_numbers(t_env, rows, per_second)
    plan = headrace.pytorch.train(
        split_rows(t_env, worker, more=", padding"),
        entry,
        workers=workers,
        epochs=epochs,
        exchange=SMALL,
        output=STEPS,
        output_dir=folder,
        name="trained",
    )
    return plan.submit(add_sink(t_env, plan, folder / "out"))


def require_exact(job: JobHandle, folder: Path) -> list[dict[str, Any]]:
    """Every row was trained on once, in steps that one process would have made alike."""
    result = job.wait(timeout_s=LIMIT_S, show_progress=False)
    rows = read_rows(folder / "out")
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    steps = {row["step"] for row in rows}
    assert steps == set(range(1, len(steps) + 1))
    require_union(rows, folder)
    for rank in range(2):
        report = result.status.nodes[f"worker-{rank}"].report
        assert report["steps"] == len(steps)
        of_worker = sum(row["worker"] == rank for row in rows)
        assert report.get("rows", 0) == of_worker
    return rows


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("worker", "ranks"),
    [
        pytest.param(UNEVEN, (0, 1), id="uneven"),
        pytest.param(ALL_FOR_ONE, (0,), id="one never has a row"),
        pytest.param(EARLY, (0,), id="one has no more rows"),
    ],
)
def test_workers_that_are_killed_end_with_the_model_of_the_steps_that_count(
    make_t_env: MakeEnvironment, tmp_path: Path, worker: str, ranks: tuple[int, ...]
) -> None:
    t_env = make_t_env(2, **CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp"))
    turns = Turns(Killer(tmp_path, tmp_path / "cp", 2), *ranks)
    entry = trainer(rows=16, keeps=True, on_start=turns.begin, after_batch=turns.look)
    require_exact(submit(t_env, tmp_path, worker, entry), tmp_path)
    assert len(list(tmp_path.glob("death-*"))) == 2


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("worker", "ranks"),
    [pytest.param("0", (0,), id="alone"), pytest.param(UNEVEN, (0, 1), id="two")],
)
def test_workers_that_are_killed_in_later_passes_go_on_there(
    make_t_env: MakeEnvironment, tmp_path: Path, worker: str, ranks: tuple[int, ...]
) -> None:
    rows, epochs, workers = 1_500, 3, len(ranks)
    t_env = make_t_env(workers, **CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp"))
    turns = Turns(Killer(tmp_path, tmp_path / "cp", 2), *ranks)
    passes: list[int] = []

    def look(ctx: Any) -> None:
        if ctx.epoch > turns.killer.deaths:  # the first in the second pass, then in the third
            turns.look(ctx)
        passes.append(ctx.epoch)
        ctx.report(first=passes[0])

    entry = trainer(rows=16, keeps=True, on_start=turns.begin, after_batch=look)
    job = submit(t_env, tmp_path, worker, entry, rows=rows, epochs=epochs, workers=workers)
    result = job.wait(timeout_s=LIMIT_S, show_progress=False)
    assert len(list(tmp_path.glob("death-*"))) == 2
    found = read_rows(tmp_path / "out")
    seen = sorted((row["epoch"], row["id"]) for row in found)
    assert seen == [(epoch, i) for epoch in range(epochs) for i in range(rows)]
    by_step = ids_by_step(found)
    model, _ = replay(by_step)
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-9, atol=1e-9)
    for rank in range(workers):
        report = result.status.nodes[f"worker-{rank}"].report
        assert report["steps"] == len(by_step)
        assert report["rows"] == sum(row["worker"] == rank for row in found)
    assert result.status.nodes["worker-0"].report["first"] > 0


@pytest.mark.timeout(240)
def test_another_job_goes_on_from_a_savepoint_of_two_workers(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    entry = trainer(rows=16, keeps=True)
    options = {**CHECKPOINTS, **in_dir(tmp_path / "cp")}
    first = submit(make_t_env(2, **options), tmp_path, UNEVEN, entry, per_second=60)
    until(lambda: _trained(first) > 500, "rows")
    j_format = get_gateway().jvm.org.apache.flink.core.execution.SavepointFormatType.CANONICAL
    folder = (tmp_path / "savepoints").as_uri()
    savepoint = first._j_client.stopWithSavepoint(False, folder, j_format).get()
    first.wait(timeout_s=LIMIT_S, show_progress=False)
    assert 500 < _trained(first) < ROWS

    t_env = make_t_env(2, **options, execution_state__recovery_path=savepoint)
    second = submit(t_env, tmp_path, UNEVEN, entry, per_second=20_000)
    require_exact(second, tmp_path)


def _trained(job: JobHandle) -> float:
    nodes = job.status().nodes
    return sum(each.report.get("rows", 0.0) for each in nodes.values()) if nodes else 0.0
