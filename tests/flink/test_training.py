"""Training on rows that Flink splits unevenly, late or not at all; content is checked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest
import torch

import headrace.pytorch
from tests.waiting import until

from .conftest import MakeEnvironment
from .paced_source import PacedSource
from .training_jobs import (
    ROWS,
    STEPS,
    add_numbers,
    add_sink,
    ids_by_step,
    read_rows,
    replay,
    split_rows,
    trainer,
)

TOLERANCE = 1e-9  # everything is computed in float64


EVEN = "MOD(id, 2)"
UNEVEN = "CASE WHEN MOD(id, 10) = 0 THEN 1 ELSE 0 END"
ALL_FOR_ONE = "1"
THREE = "CASE WHEN id < 200 THEN 0 ELSE MOD(id, 3) END"
OWNERS: Mapping[str, Callable[[int], int]] = {
    EVEN: lambda number: number % 2,
    UNEVEN: lambda number: int(number % 10 == 0),
    ALL_FOR_ONE: lambda number: 1,
    THREE: lambda number: 0 if number < 200 else number % 3,
}


@pytest.mark.parametrize(
    ("worker", "loader"),
    [
        pytest.param(EVEN, "rows", id="even"),
        pytest.param(UNEVEN, "batches", id="90-10"),
        pytest.param(ALL_FOR_ONE, "none", id="0-100"),
        pytest.param(THREE, "none", id="three-workers"),
    ],
)
def test_workers_equal_one_process_however_flink_splits_the_rows(
    make_t_env: MakeEnvironment, tmp_path: Path, worker: str, loader: str
) -> None:
    workers = 3 if worker == THREE else 2
    t_env = make_t_env(workers)
    add_numbers(t_env)
    plan = headrace.pytorch.train(
        split_rows(t_env, worker),
        trainer(loader),
        workers=workers,
        output=STEPS,
        output_dir=tmp_path,
        name="split",
    )
    result = plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    rows = read_rows(tmp_path / "out")
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    require_split(rows, worker)
    assert result.status.rows_in == ROWS
    require_union(rows, tmp_path)


def test_a_worker_that_is_idle_for_three_seconds_does_not_stop_the_other(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    for_both, for_one = range(200), range(200, 800)
    folder = str(tmp_path)

    def batches_of(rank: int) -> int:
        path = tmp_path / f"batches-{rank}"
        return path.stat().st_size if path.exists() else 0

    def script(send: Callable[[Iterable[int]], None]) -> None:
        until(lambda: all((tmp_path / f"started-{rank}").exists() for rank in range(2)))
        send(for_both)
        until(lambda: min(batches_of(0), batches_of(1)) >= 100 // 16)
        for start in range(for_one.start, for_one.stop, 20):  # in three seconds
            threading.Event().wait(0.1)
            send(range(start, start + 20))
        until(lambda: batches_of(0) >= (100 + len(for_one)) // 16)
        send(range(for_one.stop, ROWS))

    t_env = make_t_env(2)
    with PacedSource(script) as source:
        source.add_table(t_env, "numbers")
        plan = headrace.pytorch.train(
            split_rows(t_env, "CASE WHEN id BETWEEN 200 AND 799 THEN 0 ELSE MOD(id, 2) END"),
            trainer(
                rows=16,
                on_start=lambda ctx: touch(f"{folder}/started-{ctx.rank}"),
                on_batch=lambda ctx: add_byte(f"{folder}/batches-{ctx.rank}"),
            ),
            workers=2,
            output=STEPS,
            output_dir=tmp_path,
            name="idles",
        )
        plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    rows = read_rows(tmp_path / "out")
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    require_union(rows, tmp_path)
    of_idle = {row["step"] for row in rows if row["worker"] == 1}
    others = {row["step"] for row in rows if row["worker"] == 0} - of_idle
    meanwhile = [step for step in others if min(of_idle) < step < max(of_idle)]
    assert len(meanwhile) >= len(for_one) // 16 - 4, (sorted(of_idle), sorted(others))


def touch(path: str) -> None:
    Path(path).touch()


def add_byte(path: str) -> None:
    with Path(path).open("ab") as file:
        file.write(b".")


def require_split(rows: list[dict[str, int]], worker: str) -> None:
    owners = {row["id"]: row["worker"] for row in rows}
    assert owners == {number: OWNERS[worker](number) for number in range(ROWS)}


def require_union(rows: list[dict[str, float]], directory: Path) -> None:
    """The model, and every row's emitted error, are those of one process on the union."""
    model, errors = replay(ids_by_step(rows))
    saved = torch.load(directory / "model.pt", weights_only=True)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=TOLERANCE, atol=TOLERANCE)
    for row in rows:
        assert row["error"] == pytest.approx(errors[int(row["id"])], rel=1e-6, abs=1e-9)
