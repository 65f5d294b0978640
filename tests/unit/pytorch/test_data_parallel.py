"""Several workers, as processes with gloo, equal one process on the union of the rows."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
from torch import nn

from headrace.config import TimeoutConfig
from headrace.errors import UserCodeError
from headrace.testing import Fault, Kill, Pause, RunResult, run
from tests.unit.pytorch.training import (
    STEPS_SCHEMA,
    Training,
    build_table,
    replay,
)

ROWS = 101  # divides by neither workers nor batches
LIMITS = TimeoutConfig(collective_timeout_s=30.0, gather_timeout_s=60.0)
pytestmark = pytest.mark.timeout(120)


def train(training: Training, output_dir: Path, *, workers: int = 2, **how: Any) -> RunResult:
    return run(
        training,
        build_table(ROWS),
        workers=workers,
        output_schema=STEPS_SCHEMA,
        output_dir=output_dir,
        batch_rows=training.rows,
        timeouts=LIMITS,
        timeout_s=90.0,
        **how,
    )


def require_union(result: RunResult, training: Training, epochs: int = 1) -> None:
    """Every row was trained once per epoch, and the saved model is that of one process."""
    assert result.emitted is not None
    assert sorted(result.emitted["id"].to_pylist()) == sorted([*range(ROWS)] * epochs)
    assert sum(result.rows_in) == ROWS
    saved = torch.load(result.saved[0], weights_only=True)
    alone = replay(result, build_table(ROWS), training.optimizer).state_dict()
    for name, value in alone.items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-6)
    for name in alone:
        sums = {round(report[f"sum.{name}"], 5) for report in result.reports}
        assert len(sums) == 1, f"workers disagree on {name}: {sums}"


@pytest.mark.parametrize(
    ("split", "faults"),
    [
        pytest.param(None, (), id="even"),
        pytest.param([0.9, 0.1], (), id="one-ends-first"),
        pytest.param([1.0, 0.0], (), id="one-gets-nothing"),
        pytest.param(None, [Pause(worker=0, after_rows=16, for_s=1.5)], id="one-idles"),
    ],
)
def test_two_workers_equal_one_process_on_the_union(
    tmp_path: Path, split: Sequence[float] | None, faults: Sequence[Fault]
) -> None:
    training = Training(optimizer="adam")
    result = train(training, tmp_path, split=split, faults=faults)
    require_union(result, training)
    if faults:  # the other went on meanwhile
        assert result.workers[1].history[0]["steps"] < result.workers[0].history[2]["steps"] - 1


def test_three_workers_with_pauses_and_a_data_loader_over_two_epochs(tmp_path: Path) -> None:
    training = Training(loader="batches")
    pauses = [
        Pause(worker=0, after_rows=0, for_s=0.7),
        Pause(worker=1, after_rows=9, for_s=0.5),
        Pause(worker=2, after_rows=20, for_s=0.4),
    ]
    result = train(
        training, tmp_path, workers=3, split=[0.5, 0.3, 0.2], faults=pauses, epochs=2
    )
    require_union(result, training, epochs=2)


def test_a_loader_that_groups_rows_trains_its_last_short_batch(tmp_path: Path) -> None:
    training = Training(loader="rows", optimizer="adam")
    result = train(training, tmp_path, split=[0.6, 0.4])
    assert result.rows_in == (61, 40)  # 8 batches with a short one, and 5
    assert [report["steps"] for report in result.reports] == [8, 8]
    require_union(result, training)


def test_a_worker_that_leaves_its_loop_does_not_hold_up_the_others(tmp_path: Path) -> None:
    def leave(ctx: Any) -> None:
        Training(leave_after=2 if ctx.rank == 0 else None)(ctx)

    result = run(
        leave,
        build_table(ROWS),
        workers=2,
        output_schema=STEPS_SCHEMA,
        output_dir=tmp_path,
        batch_rows=8,
        timeouts=LIMITS,
        timeout_s=90.0,
    )
    assert result.emitted is not None
    assert result.workers[0].emitted is not None
    assert result.workers[0].emitted.num_rows == 16
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    for name, value in replay(result, build_table(ROWS), "sgd").state_dict().items():
        torch.testing.assert_close(saved[name], value, rtol=1e-5, atol=1e-6)


def test_running_means_are_those_of_the_union_and_batch_counts_do_not_drift(
    tmp_path: Path,
) -> None:
    def train_normalised(ctx: Any) -> None:
        torch.manual_seed(ctx.rank)  # different on purpose: rank 0's model is spread
        head = nn.Linear(3, 1)
        model = nn.Sequential(nn.BatchNorm1d(3), head)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        ctx.data_parallel(model, optimizer)
        for batch in ctx.batches(rows=50):
            loss: Any = model(batch["x"]).mean()
            loss.backward()
            optimizer.step()
        ctx.save(model)
        counts = model.state_dict()["0.num_batches_tracked"]
        ctx.report(tracked=counts, weight=head.weight.detach().sum())

    table = build_table(100)
    result = run(
        train_normalised,
        table,
        workers=2,
        split=[0.5, 0.5],
        output_dir=tmp_path,
        timeouts=LIMITS,
        timeout_s=90.0,
    )
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    mean = torch.tensor(table["x"].to_pylist()).mean(dim=0)
    torch.testing.assert_close(saved["0.running_mean"], 0.1 * mean, rtol=1e-4, atol=1e-6)
    assert [report["tracked"] for report in result.reports] == [1, 1]
    assert result.reports[0] == result.reports[1]


def test_plain_ddp_works_in_batch_mode() -> None:
    def train_plain(ctx: Any) -> None:
        torch.manual_seed(ctx.rank)
        model = nn.parallel.DistributedDataParallel(nn.Linear(2, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            loss: Any = model(torch.full((4, 2), float(ctx.rank + step))).mean()
            loss.backward()
            optimizer.step()
        ctx.report(weight=sum(float(p.detach().sum()) for p in model.parameters()))

    result = run(train_plain, workers=2, timeouts=LIMITS, timeout_s=90.0)
    assert result.reports[0]["weight"] == pytest.approx(result.reports[1]["weight"])


def test_own_files_of_different_length_train_together_in_batch_mode() -> None:
    def train_files(ctx: Any) -> None:
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer)
        for _ in range(2 + 3 * ctx.rank):
            optimizer.zero_grad()
            ctx.step_rows(4)
            loss: Any = model(torch.ones(4, 1)).mean()
            loss.backward()
            optimizer.step()
        ctx.join()
        ctx.report(steps=ctx.steps, bias=model.bias.detach())

    result = run(train_files, workers=2, timeouts=LIMITS, timeout_s=90.0)
    assert [report["steps"] for report in result.reports] == [5, 5]
    assert result.reports[0] == result.reports[1]


def test_a_worker_that_stops_the_job_ends_all_with_success(tmp_path: Path) -> None:
    def train_until_good(ctx: Any) -> None:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer)
        for batch in ctx.batches(rows=8):
            loss: Any = model(batch["x"]).mean()
            loss.backward()
            optimizer.step()
            if ctx.rank == 0 and ctx.steps == 3:
                ctx.save(model)
                ctx.stop_job("good enough")

    quiet = [Pause(worker=worker, after_rows=40, for_s=600.0) for worker in (0, 1)]
    result = run(
        train_until_good,
        build_table(ROWS),
        workers=2,
        batch_rows=8,
        output_dir=tmp_path,
        faults=quiet,
        timeouts=LIMITS,
        timeout_s=90.0,
    )
    assert result.saved == (tmp_path / "model.pt",)


def test_an_exception_in_one_worker_ends_the_run_with_its_traceback(tmp_path: Path) -> None:
    def fail(ctx: Any) -> None:
        def look_at(batch: dict[str, Any]) -> None:
            if ctx.rank == 1 and int(batch["id"][0]) >= 16:
                msg = "a value that I do not like"
                raise ValueError(msg)

        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer)
        for batch in ctx.batches(rows=8):
            look_at(batch)
            loss: Any = model(batch["x"]).mean()
            loss.backward()
            optimizer.step()

    with pytest.raises(UserCodeError) as caught:
        train_until_failure(fail)
    assert caught.value.node == "worker-1"
    assert "a value that I do not like" in str(caught.value)
    assert "in look_at" in str(caught.value)


def test_a_killed_peer_is_noticed_long_before_the_collective_timeout() -> None:
    begin = monotonic()
    with pytest.raises(UserCodeError) as caught:
        train_until_failure(Training(), faults=[Kill(worker=1, after_rows=16)])
    assert caught.value.node == "worker-1"
    assert caught.value.signal == signal.SIGKILL.name
    assert monotonic() - begin < 60.0


def train_until_failure(train: Any, **how: Any) -> None:
    run(
        train,
        build_table(ROWS),
        workers=2,
        output_schema=STEPS_SCHEMA,
        batch_rows=8,
        timeouts=TimeoutConfig(collective_timeout_s=300.0),
        timeout_s=90.0,
        **how,
    )


def test_gradients_that_are_added_up_but_not_stepped_are_an_error_and_no_wrong_step() -> None:
    def entry(ctx: Any) -> None:
        model = nn.Linear(1, 1)
        ctx.data_parallel(model, torch.optim.SGD(model.parameters(), lr=0.1))
        for batch in ctx.batches(rows=8):
            model(torch.ones(len(batch["id"]), 1)).mean().backward()
            ctx.all_reduce_gradients()

    with pytest.raises(UserCodeError, match=r"without optimizer\.step\(\) after it"):
        run(entry, build_table(ROWS), workers=2, timeouts=LIMITS, timeout_s=60.0)
