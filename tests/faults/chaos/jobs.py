"""The jobs that are killed at random: they count rows, train, and emit both for each row.

The entries travel by value.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cloudpickle
from pyflink.datastream import DataStream
from pyflink.table import DataTypes, StreamTableEnvironment

import headrace.pytorch
import headrace.tensorflow
from headrace.config import ExchangeConfig, TimeoutConfig
from headrace.operator import JobHandle
from tests.flink.jvm import make_environment
from tests.flink.tensorflow_jobs import build_model as build_keras_model
from tests.flink.tensorflow_jobs import step_function
from tests.flink.training_jobs import (
    COLUMNS,
    STEPS,
    add_sink,
    build_model,
    build_optimizer,
    errors_of,
    split_rows,
)

__all__ = [
    "OPTIONS",
    "SPARE_AFTER_S",
    "Case",
    "OnStep",
    "Places",
    "add_rows",
    "checksum_of",
    "submit",
]

cloudpickle.register_pickle_by_value(sys.modules[__name__])

OnStep = Callable[[Any], object]
"""What a worker does, with its context, after each step on rows of its own."""

_MODULUS = 2**61 - 1
_BATCH_ROWS = 16
_RATE = 0.02
SPARE_AFTER_S = 1.0  # so that there are some between two kills
OPTIONS = {
    "execution.checkpointing.interval": "500 ms",
    "execution.checkpointing.tolerable-failed-checkpoints": "100000",
    "restart-strategy.type": "fixed-delay",
    "restart-strategy.fixed-delay.attempts": "100000",
    "restart-strategy.fixed-delay.delay": "100 ms",
    # Few rows are under way, so that a barrier does not wait behind all of them.
    "taskmanager.memory.segment-size": "4kb",
    "taskmanager.network.memory.buffers-per-channel": "2",
    "taskmanager.network.memory.floating-buffers-per-gate": "2",
}


@dataclass(frozen=True, slots=True)
class Case:
    """What kind of job is killed.

    Attributes:
        framework: With which it trains.
        workers: How many processes train in common; a row belongs to the one of its number
            modulo `workers`.
        rows: How many there are, numbered from 0.
        rows_per_s: How fast they come.
    """

    framework: Literal["pytorch", "tensorflow"]
    workers: int
    rows: int
    rows_per_s: int

    def __str__(self) -> str:
        return f"{self.framework}, {self.workers} worker{'s' * (self.workers > 1)}"


@dataclass(frozen=True, slots=True)
class Places:
    """Where a job leaves what.

    Attributes:
        folder: The folder of one job alone.
    """

    folder: Path

    @property
    def checkpoints(self) -> Path:
        """Flink's checkpoints."""
        return self.folder / "checkpoints"

    @property
    def out(self) -> Path:
        """Files of a transactional sink."""
        return self.folder / "out"

    @property
    def tmp(self) -> Path:
        """Flink's temporary directory: that of the work directories."""
        return self.folder / "tmp"

    @property
    def steps(self) -> Path:
        """A file `<worker>-<pid>` of each process: "<monotonic s> <step> <attempt>" a step."""
        return self.folder / "steps"


def checksum_of(checksum: int, number: int) -> int:
    """Return the checksum of a sequence of rows with one more."""
    return (checksum * 31 + number) % _MODULUS


def _nothing(ctx: Any) -> None:
    """Go on."""


def submit(
    case: Case,
    places: Places,
    *,
    name: str = "chaos",
    options: Mapping[str, str] | None = None,
    timeouts: TimeoutConfig | None = None,
    on_step: OnStep = _nothing,
    make: Callable[..., StreamTableEnvironment] = make_environment,
    sink: Callable[..., Any] = add_sink,
    more: Mapping[str, Any] | None = None,
) -> JobHandle:
    """Submit the job, on the mini-cluster of this process by default.

    Args:
        case: What kind of job.
        places: Where it leaves what.
        name: Of the job.
        options: Further options of Flink.
        timeouts: Limits on its waits; None: the default ones.
        on_step: Travels to the workers.
        make: Makes the environment, as `make_environment` does.
        sink: Takes what the workers emit, as `add_sink` does.
        more: Further arguments of the framework's `train`.
    """
    places.steps.mkdir(parents=True)
    places.tmp.mkdir(exist_ok=True)
    where = {
        "execution.checkpointing.dir": places.checkpoints.as_uri(),
        "io.tmp.dirs": str(places.tmp),
    }
    t_env = make({**OPTIONS, **where, **(options or {})}, parallelism=case.workers)
    rows = add_rows(t_env, case)
    trains = {"pytorch": _in_pytorch, "tensorflow": _in_tensorflow}[case.framework]
    framework: Any = {"pytorch": headrace.pytorch, "tensorflow": headrace.tensorflow}[
        case.framework
    ]
    plan = framework.train(
        rows,
        trains(str(places.steps), on_step),
        workers=case.workers,
        exchange=ExchangeConfig(batch_rows=_BATCH_ROWS, slots=2),
        output={**STEPS, "count": DataTypes.BIGINT(), "checksum": DataTypes.BIGINT()},
        output_dir=places.folder,
        timeouts=timeouts,
        name=name,
        spare_after_s=SPARE_AFTER_S,
        **(more or {}),
    )
    columns = f"{COLUMNS}, `count` BIGINT, checksum BIGINT"
    job: JobHandle = plan.submit(sink(t_env, plan, places.out, columns))
    return job


def add_rows(t_env: StreamTableEnvironment, case: Case) -> DataStream:
    """Register the table `numbers`; return its rows, each on its way to its worker."""
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT, padding STRING) WITH "
        "('connector'='datagen', 'fields.id.kind'='sequence', 'fields.id.start'='0', "
        f"'fields.padding.length'='1000', 'fields.id.end'='{case.rows - 1}', "
        f"'rows-per-second'='{case.rows_per_s}', 'number-of-rows'='{case.rows}', "
        "'scan.parallelism'='1')"
    )
    return split_rows(t_env, f"MOD(id, {case.workers})", more=", padding")


class _Counter:
    """Counts the rows of a process in its state, and notes when it made which step."""

    def __init__(self, ctx: Any, folder: str) -> None:
        self._ctx = ctx
        self._log = open(f"{folder}/{ctx.index}-{os.getpid()}", "a", buffering=1)  # noqa: SIM115, PTH123 - to the end of the process

    def rows_of_step(self, step: int, ids: list[int], errors: Any) -> dict[str, Any]:
        """Return what to emit for the rows of a step that was made."""
        state, ctx = self._ctx.state, self._ctx
        counts, sums = [], []
        for number in ids:
            state["rows"] = state.get("rows", 0) + 1
            state["checksum"] = checksum_of(state.get("checksum", 0), number)
            counts.append(state["rows"])
            sums.append(state["checksum"])
        self._log.write(f"{time.monotonic():.3f} {step} {ctx.attempt}\n")
        return {
            "step": [step] * len(ids),
            "worker": [ctx.index] * len(ids),
            "epoch": [0] * len(ids),
            "id": ids,
            "error": errors,
            "count": counts,
            "checksum": sums,
        }


def _in_pytorch(folder: str, on_step: OnStep) -> Callable[[Any], None]:
    def entry(ctx: Any) -> None:
        import torch

        torch.set_num_threads(1)
        model = build_model()
        optimizer, scheduler = build_optimizer(model)
        ctx.checkpointed(model=model, optimizer=optimizer, scheduler=scheduler)
        ctx.data_parallel(model, optimizer, scheduler)
        counter = _Counter(ctx, folder)
        for batch in ctx.batches(rows=_BATCH_ROWS):
            errors = errors_of(model, batch["x"], batch["y"])
            loss: Any = errors.mean()
            optimizer.zero_grad()
            loss.backward()
            step = ctx.steps + 1
            optimizer.step()
            scheduler.step()
            ctx.emit(counter.rows_of_step(step, batch["id"].tolist(), errors))
            on_step(ctx)
        ctx.report(rows=ctx.state.get("rows", 0))
        ctx.save(model)

    return entry


def _in_tensorflow(folder: str, on_step: OnStep) -> Callable[[Any], None]:
    def entry(ctx: Any) -> None:
        import keras
        import tensorflow as tf

        model = build_keras_model()
        optimizer = keras.optimizers.Adam(_RATE)
        ctx.checkpointed(model=model, optimizer=optimizer)
        ctx.data_parallel(model, optimizer)
        step = step_function(tf, model, optimizer)
        counter = _Counter(ctx, folder)
        rows = ctx.dataset(_BATCH_ROWS, shapes={"x": (2,)}, columns=["x", "y", "id"])
        for batch in rows:
            errors = step(batch["x"], batch["y"]).numpy()
            ctx.emit(counter.rows_of_step(ctx.steps, batch["id"].numpy().tolist(), errors))
            on_step(ctx)
        ctx.report(rows=ctx.state.get("rows", 0))
        ctx.save(model)

    return entry
