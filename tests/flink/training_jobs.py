"""Rows for training jobs, split among the workers as a test wants, and the same steps alone."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from pyflink.common.serialization import Encoder
from pyflink.datastream import DataStream
from pyflink.datastream.connectors.file_system import FileSink, RollingPolicy
from pyflink.java_gateway import get_gateway
from pyflink.table import DataTypes, StreamTableEnvironment
from torch import nn
from torch.utils.data import DataLoader

from headrace.pytorch import TrainingPlan

ROWS = 1003
STEPS = {
    "step": DataTypes.BIGINT(),
    "worker": DataTypes.INT(),
    "epoch": DataTypes.INT(),
    "id": DataTypes.BIGINT(),
    "error": DataTypes.DOUBLE(),
}
COLUMNS = "step BIGINT, worker INT, epoch INT, id BIGINT, error DOUBLE"


def add_numbers(t_env: StreamTableEnvironment, rows: int = ROWS) -> None:
    """Register a bounded table `numbers` with the column `id`, in order, from 0."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.id.end'='{rows - 1}', 'rows-per-second'='100000000', "
        f"'number-of-rows'='{rows}', 'scan.parallelism'='1')"
    )


def split_rows(t_env: StreamTableEnvironment, worker: str, more: str = "") -> DataStream:
    """Rows of `numbers` with two features x and a target y; `worker` is SQL: who gets a row.

    All of them are DOUBLE and exact: Flink and torch compute the same bits. `more` is SQL for
    further columns, each behind a comma.
    """
    table = t_env.sql_query(
        f"SELECT CAST({worker} AS INT) AS worker, id, "
        "ARRAY[CAST(MOD(id, 7) AS DOUBLE) / 8, CAST(MOD(id, 11) AS DOUBLE) / 16] AS x, "
        f"CAST(MOD(id, 13) AS DOUBLE) / 32 AS y{more} FROM numbers"
    )
    jvm = get_gateway().jvm
    by_number = jvm.org.apache.flink.python.legacy.IdPartitioner()
    first_field = jvm.PartitionCustomKeySelector()
    stream = t_env.to_data_stream(table)
    env = stream.get_execution_environment()
    stream._j_data_stream.getTransformation().setParallelism(env.get_parallelism())
    return DataStream(stream._j_data_stream.partitionCustom(by_number, first_field))


def columns_of(ids: Iterable[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and targets of these rows."""
    number = torch.tensor(list(ids), dtype=torch.int64)
    x = torch.stack([number % 7 / torch.tensor(8.0), number % 11 / torch.tensor(16.0)], dim=1)
    return x.double(), (number % 13).double() / 32


def build_model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def build_optimizer(model: nn.Module) -> tuple[torch.optim.Optimizer, Any]:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    return optimizer, torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.9)


def errors_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    values: torch.Tensor = model(x)
    return (values.squeeze(1) - y) ** 2


def batches_of(ctx: Any, loader: str, rows: int) -> Any:
    if loader == "none":
        return ctx.batches(rows=rows)
    if loader == "batches":
        return DataLoader(ctx.dataset(rows=rows), batch_size=None)
    return DataLoader(ctx.dataset(), batch_size=rows)


def trainer(
    loader: str = "none",
    *,
    rows: int = 64,
    on_start: Callable[[Any], object] = lambda _: None,
    on_model: Callable[[Any, nn.Module], object] = lambda *_: None,
    on_batch: Callable[[Any], object] = lambda _: None,
    after_batch: Callable[[Any], object] = lambda _: None,
    gives_back: tuple[str, ...] = (),
    keeps: bool = False,
) -> Any:
    """An entry function: trains, and emits each row's step and error, and these columns.

    With `keeps`, all it trains and the number of its rows are in Flink's checkpoints.
    """

    def train(ctx: Any) -> None:
        model = build_model()
        optimizer, scheduler = build_optimizer(model)
        if keeps:
            ctx.merge_state(lambda each: {"rows": sum(state.get("rows", 0) for state in each)})
            ctx.checkpointed(model=model, optimizer=optimizer, scheduler=scheduler)
        ctx.data_parallel(model, optimizer, scheduler)
        on_model(ctx, model)
        on_start(ctx)
        for batch in batches_of(ctx, loader, rows):
            on_batch(ctx)
            errors = errors_of(model, batch["x"], batch["y"])
            loss: Any = errors.mean()
            optimizer.zero_grad()
            loss.backward()
            step = ctx.steps + 1
            optimizer.step()
            scheduler.step()
            count = len(errors)
            ctx.emit(
                {
                    "step": [step] * count,
                    "worker": [ctx.rank] * count,
                    "epoch": [ctx.epoch] * count,
                    "id": batch["id"],
                    "error": errors,
                    **{name: batch[name] for name in gives_back},
                }
            )
            ctx.report(loss=loss.detach())
            if keeps:
                ctx.state["rows"] = ctx.state.get("rows", 0) + count
                ctx.report(rows=ctx.state["rows"])
            after_batch(ctx)
        if keeps:
            ctx.report(rows=ctx.state.get("rows", 0))  # of rows before a restore, perhaps
        ctx.save(model)

    return train


def replay(steps: Iterable[list[int]]) -> tuple[nn.Module, dict[int, float]]:
    """Train one process on the rows of each step; the model, and each row's last error."""
    model = build_model()
    optimizer, scheduler = build_optimizer(model)
    errors_by_id: dict[int, float] = {}
    for ids in steps:
        errors = errors_of(model, *columns_of(ids))
        loss: Any = errors.mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        errors_by_id.update(zip(ids, errors.tolist(), strict=True))
    return model, errors_by_id


def ids_by_step(rows: list[dict[str, Any]]) -> list[list[int]]:
    """Rows of each common step, in the order of the steps."""
    found: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        found[row["step"]].append(row["id"])
    return [found[step] for step in sorted(found)]


def add_sink(
    t_env: StreamTableEnvironment, plan: TrainingPlan, path: Path, columns: str = COLUMNS
) -> Any:
    """Send what a plan's workers emit to files; return the statements to submit with."""
    t_env.execute_sql(
        f"CREATE TEMPORARY TABLE results ({columns}) WITH "
        f"('connector'='filesystem', 'path'='{path.as_uri()}', 'format'='json')"
    )
    statements = t_env.create_statement_set()
    statements.add_insert("results", _table_of(t_env, plan))
    return statements


def add_rolling_sink(
    t_env: StreamTableEnvironment, plan: TrainingPlan, path: Path, columns: str = COLUMNS
) -> None:
    """As `add_sink`, but with other files for each checkpoint.

    Behind a restore the sink of a table goes on in the file that was open. A TaskManager that
    was frozen, and goes on when another one has its tasks, may write into that file as well.
    """
    names = [column.split()[0] for column in columns.split(", ")]
    fields = ", ".join(f"KEY '{name.strip('`')}' VALUE {name}" for name in names)
    t_env.create_temporary_view("emitted", _table_of(t_env, plan))
    lines = t_env.sql_query(f"SELECT JSON_OBJECT({fields}) FROM emitted")
    text = get_gateway().jvm.java.lang.Class.forName("java.lang.String")
    stream = DataStream(t_env._j_tenv.toDataStream(lines._j_table, text))
    sink = FileSink.for_row_format(path.as_uri(), Encoder.simple_string_encoder())
    rolling = sink.with_rolling_policy(RollingPolicy.on_checkpoint_rolling_policy())
    stream.sink_to(rolling.build())


def _table_of(t_env: StreamTableEnvironment, plan: TrainingPlan) -> Any:
    """What a plan's workers emit."""
    output = plan.output
    return t_env.from_data_stream(output) if isinstance(output, DataStream) else output


def read_rows(path: Path) -> list[dict[str, Any]]:
    """What a sink of `add_sink` or `add_rolling_sink` has committed."""
    files = [p for p in path.rglob("part-*") if p.is_file()]
    return [json.loads(line) for p in files for line in p.read_text().splitlines()]
