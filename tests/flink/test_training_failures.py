"""How training jobs fail, and what the cause says; batch mode goes on from its checkpoints."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import torch
from torch import nn

import headrace.pytorch
from headrace.config import TimeoutConfig
from headrace.errors import JobFailedError
from tests.waiting import live_until_ended, until

from .conftest import MakeEnvironment
from .training_jobs import STEPS, add_numbers, add_sink, build_model, split_rows, trainer

_ALLOWED_S = 5.0
"""What Flink may take to end a job on a busy machine, over the limits of Headrace."""


def kill_one(ctx: Any) -> None:
    if ctx.rank == 1 and ctx.steps == 3:
        os.kill(os.getpid(), signal.SIGKILL)


def raise_in_one(ctx: Any) -> None:
    if ctx.rank == 1 and ctx.steps == 3:
        msg = "a value that I do not like"
        raise ValueError(msg)


def stand_still_in_one(ctx: Any) -> None:
    if ctx.rank == 1 and ctx.steps == 3:
        live_until_ended()


@pytest.mark.parametrize(
    ("on_batch", "cause"),
    [
        pytest.param(kill_one, ["worker-1: ", "SIGKILL"], id="killed"),
        pytest.param(
            raise_in_one,
            ["worker-1: ValueError: a value that I do not like", "in raise_in_one"],
            id="raises",
        ),
        pytest.param(
            stand_still_in_one,
            [
                "worker-0: ",
                "CollectiveError",
                "limit 3.0 s, set by `timeouts.collective_timeout_s`",
                "A peer is alive but did not take part",
            ],
            id="too-slow",
        ),
    ],
)
def test_a_worker_that_leaves_its_peers_waiting_is_the_cause_of_the_failure(
    make_t_env: MakeEnvironment, tmp_path: Path, on_batch: Any, cause: list[str]
) -> None:
    t_env = make_t_env(2)
    add_numbers(t_env)
    plan = headrace.pytorch.train(
        split_rows(t_env, "MOD(id, 2)"),
        trainer(on_batch=on_batch),
        workers=2,
        output=STEPS,
        output_dir=tmp_path,
        timeouts=TimeoutConfig(
            collective_timeout_s=3.0 if on_batch is stand_still_in_one else 600
        ),
        name="leaves",
    )
    with pytest.raises(JobFailedError) as caught:
        plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    for text in cause:
        assert text in caught.value.cause
    assert not (tmp_path / "model.pt").exists()


def test_without_any_row_the_model_stays_as_it_was(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(2)
    t_env.execute_sql(
        "CREATE TEMPORARY VIEW numbers AS SELECT CAST(id AS BIGINT) AS id "
        "FROM (VALUES (1)) AS v(id) WHERE id > 1"
    )
    plan = headrace.pytorch.train(
        split_rows(t_env, "0"),
        trainer("rows"),
        workers=2,
        epochs=2,
        output=STEPS,
        output_dir=tmp_path,
        name="empty",
    )
    result = plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    assert result.status.rows_in == 0
    assert [node.report["steps"] for node in result.status.nodes.values()] == [0, 0]
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    for name, value in build_model().state_dict().items():
        assert torch.equal(saved[name], value)


LENGTHS = (9, 4)
SAVED_STEP = 3
KILLED_AFTER = (
    6,
    3,
)  # worker 1 in attempt 1; worker 0 in attempt 2, alone with its last values


def train_files(ctx: Any) -> None:
    """Each worker has its own number of values; attempts 1 and 2 lose a worker."""
    model = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    done = 0
    saved = ctx.latest_checkpoint()
    if saved is not None:
        state = torch.load(saved, weights_only=True)
        model.load_state_dict(state["model"])
        done = state["step"]
    ctx.data_parallel(model, optimizer)
    for step in range(done, LENGTHS[ctx.rank]):
        optimizer.zero_grad()
        loss: Any = model(values_of(ctx.rank, step)).mean()
        loss.backward()
        ctx.step_rows(1 + ctx.rank)
        optimizer.step()
        if step + 1 == SAVED_STEP and ctx.rank == 0:
            with ctx.checkpoint_path(SAVED_STEP) as path:
                torch.save({"model": model.state_dict(), "step": SAVED_STEP}, path)
        if step == KILLED_AFTER[ctx.rank] and ctx.attempt == 2 - ctx.rank:
            os.kill(os.getpid(), signal.SIGKILL)
    ctx.join()
    ctx.save(model)
    ctx.report(done_before=done)


def values_of(rank: int, step: int) -> torch.Tensor:
    return torch.full((1 + rank, 1), float(step + 10 * rank), dtype=torch.float64)


def test_a_group_on_files_of_unequal_length_goes_on_from_its_checkpoint_after_kills(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    make_t_env(1)
    result = (
        headrace.pytorch.train(
            None,
            train_files,
            workers=2,
            output_dir=tmp_path,
            checkpoint_dir=tmp_path / "checkpoints",
            name="files",
        )
        .submit()
        .wait(timeout_s=110)
    )
    expected = 0.0
    for step in range(max(LENGTHS)):
        rows = [values_of(rank, step) for rank in range(2) if step < LENGTHS[rank]]
        expected -= 0.1 * float(torch.cat(rows).mean())
    weight = torch.load(tmp_path / "model.pt", weights_only=True)["weight"].item()
    assert weight == pytest.approx(expected, rel=1e-12)
    assert (result.status.attempt, result.status.restarts) == (3, 2)
    for node in result.status.nodes.values():
        assert node.report == {"done_before": 3, "steps": max(LENGTHS) - SAVED_STEP}


def test_a_group_that_is_killed_again_and_again_fails_with_the_signal_and_the_limit(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    make_t_env(1)
    folder = str(tmp_path)

    def die(ctx: Any) -> None:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer)
        for step in range(1000):
            loss: Any = model(torch.ones(1, 1)).sum()
            loss.backward()
            optimizer.step()
            if ctx.rank == 1 and step == 2:
                Path(folder, f"killed-{ctx.attempt}").touch()
                os.kill(os.getpid(), signal.SIGKILL)

    plan = headrace.pytorch.train(
        None, die, workers=2, max_restarts=1, output_dir=tmp_path, name="dies"
    )
    job = plan.submit()
    until((tmp_path / "killed-2").exists, "a second kill", 90)
    killed_at = monotonic()
    with pytest.raises(JobFailedError) as caught:
        job.wait(timeout_s=60)
    assert monotonic() - killed_at < TimeoutConfig().stop_grace_s + _ALLOWED_S
    assert "worker-1" in caught.value.cause
    assert "SIGKILL" in caught.value.cause
    assert "restarted 1 times before (limit set by `am.max_restarts`)" in caught.value.cause
