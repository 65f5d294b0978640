"""A training that goes on from a savepoint with another number of workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import headrace.pytorch
from headrace.errors import JobFailedError
from headrace.operator import JobHandle
from tests.waiting import until

from .conftest import MakeEnvironment
from .kept_state import count_rows
from .test_kept_state import NARROW, SMALL, in_dir, submit
from .test_kept_training import add_slow_numbers
from .test_operator_rows import CHECKPOINTS
from .test_training import require_union
from .training_jobs import STEPS, add_sink, read_rows, split_rows, trainer

ROWS = 3_000
LIMIT_S = 200.0
# Flink finds the state of a query's operators by their place in the plan, which depends on what
# is chained to what, and so on the parallelism.
UNCHAINED = {"pipeline_operator__chaining_enabled": "false"}


def compare_with(saved: Path) -> Any:
    """Report whether the model, as it was restored, is the saved one, bit for bit."""
    path = str(saved)

    def compare(ctx: Any, model: torch.nn.Module) -> None:
        if ctx.is_restored:
            kept = torch.load(path)
            equal = [torch.equal(kept[name], each) for name, each in model.state_dict().items()]
            ctx.report(is_equal=float(all(equal)))

    return compare


def start(
    make_t_env: MakeEnvironment, folder: Path, workers: int, per_second: int, **options: str
) -> JobHandle:
    t_env = make_t_env(
        workers, **CHECKPOINTS, **NARROW, **UNCHAINED, **in_dir(folder / "cp"), **options
    )
    add_slow_numbers(t_env, ROWS, per_second)
    plan = headrace.pytorch.train(
        split_rows(t_env, f"MOD(id, {workers})", more=", padding"),
        trainer(rows=16, keeps=True, on_model=compare_with(folder / "model.pt")),
        workers=workers,
        exchange=SMALL,
        output=STEPS,
        output_dir=folder,
        name="trained",
    )
    return plan.submit(add_sink(t_env, plan, folder / "out"))


@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("before", "after"), [(2, 3), (3, 1), pytest.param(1, 2, marks=pytest.mark.long)]
)
def test_a_training_goes_on_with_another_number_of_workers_and_every_row_once(
    make_t_env: MakeEnvironment, tmp_path: Path, before: int, after: int
) -> None:
    first = start(make_t_env, tmp_path, before, 60)
    until(lambda: first.status().rows_in > 500, "rows")
    stopped = first.stop(tmp_path / "saved", timeout_s=LIMIT_S)
    assert stopped.savepoint is not None
    rows = read_rows(tmp_path / "out")
    assert 500 < len(rows) < ROWS
    require_union(rows, tmp_path)

    place = {"execution_state__recovery_path": stopped.savepoint}
    second = start(make_t_env, tmp_path, after, 20_000, **place)
    result = second.wait(timeout_s=LIMIT_S, show_progress=False)
    nodes = result.status.nodes
    assert sorted(nodes) == [f"worker-{index}" for index in range(after)]
    rows = read_rows(tmp_path / "out")
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    steps = {row["step"] for row in rows}
    assert steps == set(range(1, len(steps) + 1))
    require_union(rows, tmp_path)
    for node in nodes.values():
        assert node.report["is_equal"] == 1.0
        assert node.report["steps"] == len(steps)
    assert sum(node.report["rows"] for node in nodes.values()) == ROWS


@pytest.mark.timeout(240)
def test_values_of_each_process_are_refused_unless_they_are_merged(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    options = {**CHECKPOINTS, **UNCHAINED, **in_dir(tmp_path / "cp")}
    out = tmp_path / "out"
    first = submit(make_t_env(1, **options), count_rows(), rows=9_000, per_second=100, out=out)
    until(lambda: first.status().rows_in > 0, "rows")
    stopped = first.stop(tmp_path / "saved", timeout_s=LIMIT_S)

    t_env = make_t_env(2, **options, execution_state__recovery_path=stopped.savepoint)
    second = submit(t_env, count_rows(), rows=9_000, per_second=500, out=out, workers=2)
    with pytest.raises(JobFailedError, match=r"ctx\.merge_state\(function\)"):
        second.wait(timeout_s=LIMIT_S, show_progress=False)
