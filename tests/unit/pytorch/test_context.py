"""The context with one worker, in this process, fed from a table."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils.data import DataLoader

from headrace.errors import ConfigError, UsageError, WaitTimeoutError
from headrace.exchange import MemoryFeed
from headrace.pytorch.context import TorchContext
from headrace.pytorch.settings import TorchSettings
from headrace.testing import Pause
from tests.unit.pytorch.training import (
    OPTIMIZERS,
    STEPS_SCHEMA,
    Training,
    build_model,
    build_table,
    checksums,
    run,
    train_step,
)
from tests.unit.role.doubles import FakeClock, FakeLink, spec_in


@pytest.mark.parametrize("loader", ["none", "batches", "rows"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_one_worker_equals_the_plain_loop_bit_for_bit(
    tmp_path: Path, optimizer: str, loader: str
) -> None:
    table = build_table(50)
    train = Training(optimizer=optimizer, loader=loader)
    result = run(train, table, epochs=2, output_schema=STEPS_SCHEMA, output_dir=tmp_path)

    model = build_model()
    stepper, scheduler = OPTIMIZERS[optimizer](model)
    x = torch.tensor(table["x"].to_pylist())
    y = torch.tensor(table["y"].to_numpy())
    for start in [*range(0, 50, 8), *range(0, 50, 8)]:
        train_step(model, stepper, {"x": x[start : start + 8], "y": y[start : start + 8]})
        if scheduler is not None:
            scheduler.step()
    if loader != "rows":  # a loader that groups rows itself goes on across the end of an epoch
        saved = torch.load(tmp_path / "model.pt", weights_only=True)
        assert all(torch.equal(saved[name], v) for name, v in model.state_dict().items())
        assert result.reports[0]["steps"] == 14
    assert result.rows_in == (50,)
    assert result.saved == (tmp_path / "model.pt",)


def test_scripts_find_a_process_group_and_it_is_gone_afterwards() -> None:
    seen: list[tuple[int, int, int]] = []

    def train(ctx: Any) -> None:
        dist.all_reduce(torch.ones(1))
        seen.append((ctx.rank, ctx.world_size, dist.get_world_size()))
        nn.parallel.DistributedDataParallel(nn.Linear(1, 1))

    run(train)
    assert seen == [(0, 1, 1)]
    assert not dist.is_initialized()


def test_an_exception_arrives_as_it_is_and_leaves_no_group() -> None:
    def train(_ctx: Any) -> None:
        msg = "my mistake"
        raise KeyError(msg)

    with pytest.raises(KeyError, match="my mistake"):
        run(train)
    assert not dist.is_initialized()


def test_what_is_emitted_and_reported_comes_back() -> None:
    def train(ctx: Any) -> None:
        for batch in ctx.batches(rows=3):
            ctx.report(total=batch["id"].sum())
            ctx.emit({"twice": batch["id"] * 2})

    schema = pa.schema([("twice", pa.int64())])
    result = run(train, build_table(5), output_schema=schema)
    assert result.emitted is not None
    assert result.emitted["twice"].to_pylist() == [0, 2, 4, 6, 8]
    assert [each["total"] for each in result.workers[0].history] == [3, 7]


def test_clipping_before_the_step_works_with_one_worker() -> None:
    norms: list[float] = []

    def train(ctx: Any) -> None:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        clip = lambda: nn.utils.clip_grad_norm_(model.parameters(), 0.001)  # noqa: E731
        ctx.data_parallel(model, optimizer, before_step=clip)
        for batch in ctx.batches(rows=4):
            before = model.weight.detach().clone()
            train_step(model, optimizer, batch)
            norms.append(float((model.weight.detach() - before).norm()))

    run(train, build_table(8))
    assert all(norm <= 0.001 for norm in norms)
    assert len(norms) == 2


def test_a_dataset_refuses_loader_workers() -> None:
    def train(ctx: Any) -> None:
        loader = DataLoader(ctx.dataset(), batch_size=2, num_workers=1)
        batches: Any = iter(loader)
        try:
            next(batches)
        finally:
            batches._shutdown_workers()  # its process would stay until the garbage is collected

    with pytest.raises(UsageError, match="num_workers=0"):
        run(train, build_table(4))


def test_a_dataset_goes_on_where_the_last_iteration_stopped() -> None:
    seen: list[int] = []

    def train(ctx: Any) -> None:
        dataset = ctx.dataset(rows=2)
        for batch in dataset:
            seen.extend(batch["id"].tolist())
            break
        for batch in DataLoader(dataset, batch_size=None):
            seen.extend(batch["id"].tolist())

    run(train, build_table(5))
    assert seen == [0, 1, 2, 3, 4]


def test_save_needs_an_output_dir_and_stays_in_it(tmp_path: Path) -> None:
    def train(ctx: Any) -> None:
        ctx.save({}, "../model.pt")

    with pytest.raises(UsageError, match="output_dir"):
        run(train)
    with pytest.raises(ConfigError, match="below the output directory"):
        run(train, output_dir=tmp_path)


def test_data_parallel_is_called_once() -> None:
    def train(ctx: Any) -> None:
        model = nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        ctx.data_parallel(model, optimizer)
        ctx.data_parallel(model, optimizer)

    with pytest.raises(UsageError, match="one optimizer"):
        run(train)


def test_an_optimizer_with_closures_is_refused() -> None:
    def train(ctx: Any) -> None:
        model = nn.Linear(1, 1)
        ctx.data_parallel(model, torch.optim.LBFGS(model.parameters()))

    with pytest.raises(ConfigError, match="LBFGS"):
        run(train)


def test_methods_of_data_parallel_say_that_it_is_missing() -> None:
    with pytest.raises(UsageError, match="data_parallel"):
        run(lambda ctx: ctx.all_reduce_gradients())
    with pytest.raises(UsageError, match="data_parallel"):
        run(lambda ctx: ctx.join())


def test_a_batch_that_does_not_come_in_time_is_an_error() -> None:
    def train(ctx: Any) -> None:
        list(ctx.batches(timeout_s=0.05))

    with pytest.raises(WaitTimeoutError, match=r"timeout_s of ctx\.batches"):
        run(train, build_table(4), faults=[Pause(worker=0, after_rows=2, for_s=5.0)])


def test_checksums_tell_models_apart() -> None:
    assert checksums(build_model()) == checksums(build_model())
    assert checksums(nn.Linear(3, 1)) != checksums(nn.Linear(3, 1))


def test_steps_and_saves_are_signs_that_the_process_gets_on(tmp_path: Path) -> None:
    """Also in a loop over rows of its own, which asks for none and reports nothing."""
    link = FakeLink()
    feed = MemoryFeed.of_table(build_table(8), batch_rows=8)
    spec = spec_in(tmp_path, index=0, parallelism=1)
    context = TorchContext(spec=spec, link=link, feed=feed, clock=FakeClock(step_s=1.0))
    context.settings = TorchSettings(output_dir=tmp_path / "out")
    context.watch_steps()
    model = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(1, 4):
        model(torch.ones(1)).sum().backward()
        optimizer.step()
        assert len(link.reports) == step
    context.save(model)
    assert len(link.reports) == 4
    context.close(is_success=False)
    optimizer.step()
    assert len(link.reports) == 4, "the hook is gone"


@pytest.mark.parametrize(("workers", "left"), [(1, ["state", "result"]), (2, ["result"])])
def test_peers_do_not_lose_the_process_group_behind_an_exception(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int, left: list[str]
) -> None:
    """One worker has no peers, and leaves nothing to the next run in its process."""
    closed: list[str] = []

    def close(end: str, state: object) -> None:
        monkeypatch.setattr("headrace.pytorch.context.close_group", lambda: closed.append(end))
        spec = spec_in(tmp_path, index=0, parallelism=workers)
        feed = MemoryFeed.of_table(build_table(8), output_schema=STEPS_SCHEMA)
        context = TorchContext(spec=spec, link=FakeLink(), feed=feed)
        context.use_settings(TorchSettings())
        context.state["kept"] = state
        assert sum(len(batch["x"]) for batch in context.batches()) == 8
        context.close(is_success=True)

    with pytest.raises(UsageError, match="pickle"):
        close("state", threading.Lock())
    close("result", 1)
    assert closed == left
