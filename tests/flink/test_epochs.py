"""Several passes over the rows of one input, alone and after the loss of a worker."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
from pyflink.common import Types
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.table import DataTypes, StreamTableEnvironment

import headrace.pytorch
from headrace.config import TimeoutConfig
from headrace.errors import JobFailedError
from headrace.operator import JobResult
from tests.waiting import work_for

from .conftest import MakeEnvironment
from .training_jobs import (
    COLUMNS,
    ROWS,
    STEPS,
    add_numbers,
    add_sink,
    build_model,
    build_optimizer,
    columns_of,
    errors_of,
    read_rows,
    split_rows,
    trainer,
)

EPOCHS = 3
SILENCE_S = 3.0
RESTARTS = {
    "restart__strategy_type": "fixed-delay",
    "restart__strategy_fixed__delay_attempts": "5",
    "restart__strategy_fixed__delay_delay": "100 ms",
}


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What one worker has made of several epochs, with a step that takes long.

    Each row has a random number that is drawn when the source is read, and `copies` are the
    rows as another reader of the same stream got them.
    """

    rows: list[dict[str, Any]]
    copies: list[dict[str, Any]]
    model: dict[str, torch.Tensor]
    result: JobResult


def wait_once(ctx: Any) -> None:
    ctx.report(diverged=float("nan"))
    if ctx.steps == 20:
        work_for(1.5 * SILENCE_S)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    directory = tmp_path_factory.mktemp("epochs")
    env = StreamExecutionEnvironment.get_execution_environment()
    env.set_parallelism(1)
    t_env = StreamTableEnvironment.create(env)
    add_numbers(t_env)
    stream = split_rows(t_env, "0", more=", RAND() AS drawn")
    plan = headrace.pytorch.train(
        stream,
        trainer(on_batch=wait_once, gives_back=("drawn",)),
        epochs=EPOCHS,
        output={**STEPS, "drawn": DataTypes.DOUBLE()},
        output_dir=directory,
        timeouts=TimeoutConfig(heartbeat_every_s=0.3, heartbeat_timeout_s=SILENCE_S),
        name="epochs",
    )
    statements = add_sink(t_env, plan, directory / "out", f"{COLUMNS}, drawn DOUBLE")
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE copies (id BIGINT, drawn DOUBLE) WITH ("
        "'connector'='filesystem', 'format'='json', "
        f"'path'='{(directory / 'copies').as_uri()}')"
    )
    t_env.create_temporary_view("given", t_env.from_data_stream(stream))
    statements.add_insert("copies", t_env.sql_query("SELECT id, drawn FROM given"))
    result = plan.submit(statements).wait(timeout_s=100)
    return Trained(
        rows=read_rows(directory / "out"),
        copies=read_rows(directory / "copies"),
        model=torch.load(directory / "model.pt", weights_only=True),
        result=result,
    )


def test_one_worker_equals_the_loop_without_headrace_bit_for_bit(trained: Trained) -> None:
    model = build_model()
    optimizer, scheduler = build_optimizer(model)
    for start in [*range(0, ROWS, 64)] * EPOCHS:
        loss: Any = errors_of(model, *columns_of(range(start, min(start + 64, ROWS)))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    expected = model.state_dict()
    assert trained.model.keys() == expected.keys()
    for name, value in expected.items():
        assert trained.model[name].numpy().tobytes() == value.numpy().tobytes(), name


def test_every_epoch_sees_every_row_once_in_the_order_of_the_first(trained: Trained) -> None:
    assert [row["id"] for row in trained.rows] == [*range(ROWS)] * EPOCHS
    assert [row["epoch"] for row in trained.rows] == [
        epoch for epoch in range(EPOCHS) for _ in range(ROWS)
    ]


def test_the_source_is_read_once_however_many_epochs_there_are(trained: Trained) -> None:
    drawn = [row["drawn"] for row in trained.copies]
    assert len(set(drawn)) == ROWS
    assert [row["drawn"] for row in trained.rows] == drawn * EPOCHS
    assert trained.result.status.rows_in == ROWS


def test_a_step_longer_than_the_heartbeat_timeout_loses_nothing(trained: Trained) -> None:
    node = trained.result.status.nodes["worker-0"]
    assert (node.attempt, trained.result.status.restarts) == (1, 0)
    assert node.report["steps"] == len(trained.rows) // ROWS * -(-ROWS // 64)


def test_a_value_that_is_not_finite_is_left_out_and_does_no_harm(trained: Trained) -> None:
    report = trained.result.status.nodes["worker-0"].report
    assert report.keys() == {"loss", "steps"}
    assert 0 < report["loss"] < 1


def test_after_a_kill_in_the_second_epoch_every_epoch_sees_every_row_once(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    folder = str(tmp_path)

    def kill_once(ctx: Any) -> None:
        mark = Path(folder, "killed")
        if ctx.rank == 1 and ctx.epoch == 1 and not mark.exists():
            mark.write_text(str(ctx.attempt))
            os.kill(os.getpid(), signal.SIGKILL)

    t_env = make_t_env(2, **RESTARTS)
    add_numbers(t_env)
    plan = headrace.pytorch.train(
        split_rows(t_env, "CASE WHEN MOD(id, 4) = 0 THEN 1 ELSE 0 END"),
        trainer(on_batch=kill_once),
        workers=2,
        epochs=2,
        output=STEPS,
        output_dir=tmp_path,
        name="killed",
    )
    result = plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    assert (tmp_path / "killed").read_text() == "1"
    assert {node.attempt for node in result.status.nodes.values()} == {2}
    rows = read_rows(tmp_path / "out")
    for epoch in (0, 1):
        assert sorted(row["id"] for row in rows if row["epoch"] == epoch) == list(range(ROWS))
    assert result.status.rows_in == ROWS


def test_a_restart_from_a_checkpoint_is_refused_with_what_to_do(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    checkpoints = str(tmp_path / "checkpoints")

    def kill_after_a_checkpoint(ctx: Any) -> None:
        is_there = any(Path(checkpoints).glob("*/chk-*/_metadata"))
        if ctx.rank == 1 and ctx.epoch > 0 and is_there:
            os.kill(os.getpid(), signal.SIGKILL)

    t_env = make_t_env(
        2,
        execution_checkpointing_interval="200 ms",
        execution_checkpointing_dir=(tmp_path / "checkpoints").as_uri(),
        **RESTARTS,
    )
    add_numbers(t_env)
    plan = headrace.pytorch.train(
        split_rows(t_env, "MOD(id, 2)"),
        trainer(on_batch=kill_after_a_checkpoint),
        workers=2,
        epochs=100_000,
        output=STEPS,
        output_dir=tmp_path,
        name="restored",
    )
    with pytest.raises(JobFailedError) as caught:
        plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    assert "restored from a Flink checkpoint or savepoint" in caught.value.cause
    assert "restart-strategy.type: none" in caught.value.cause
    assert not (tmp_path / "model.pt").exists()


GIVEN: dict[str, Callable[[StreamTableEnvironment], Any]] = {
    "values": lambda t_env: t_env.sql_query("SELECT id FROM (VALUES (1), (2)) AS v(id)"),
    "elements": lambda t_env: t_env.from_elements([(1,), (2,)], ["id"]),
    "pandas": lambda t_env: t_env.from_pandas(pandas.DataFrame({"id": [1, 2]})),
    "collection": lambda t_env: StreamExecutionEnvironment(
        t_env._j_tenv.execEnv()
    ).from_collection([(1,)], Types.ROW_NAMED(["id"], [Types.LONG()])),
}


@pytest.mark.parametrize("source", GIVEN)
def test_rows_that_the_program_gives_are_an_input_that_ends(
    make_t_env: MakeEnvironment, source: str
) -> None:
    plan = headrace.pytorch.train(GIVEN[source](make_t_env(1)), trainer(), epochs=2)
    assert not plan.cluster.has_endless_input
