"""Several workers as processes: ends, failures, own files. Union of the rows: test_union.py."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headrace.config import TimeoutConfig
from headrace.errors import UserCodeError
from headrace.testing import Kill, Pause
from tests.unit.pytorch.training import STEPS_SCHEMA, Training, build_table, replay, run

ROWS = 101  # divides by neither workers nor batches
LIMITS = TimeoutConfig(collective_timeout_s=30.0, gather_timeout_s=60.0)
pytestmark = pytest.mark.timeout(120)
_ALLOWED_S = 5.0
"""What the last steps and the end of processes may take on a busy machine."""


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


def test_a_killed_peer_is_noticed_long_before_the_collective_timeout(tmp_path: Path) -> None:
    batch_mark, end_mark = tmp_path / "batch", tmp_path / "end"

    def train(ctx: Any) -> None:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer)
        for batch in ctx.batches(rows=8):
            if ctx.rank == 1:
                batch_mark.touch()
            loss: Any = model(batch["x"]).mean()
            loss.backward()
            optimizer.step()

    with pytest.raises(UserCodeError) as caught:
        train_until_failure(train, faults=[Kill(worker=1, after_rows=16)])
    end_mark.touch()
    assert caught.value.node == "worker-1"
    assert caught.value.signal == signal.SIGKILL.name
    took_s = end_mark.stat().st_mtime - batch_mark.stat().st_mtime
    assert took_s < TimeoutConfig().stop_grace_s + _ALLOWED_S


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
