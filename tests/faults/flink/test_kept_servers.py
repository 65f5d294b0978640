"""Workers and servers are killed or freeze: each row is in the variables exactly once."""

from __future__ import annotations

import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import headrace.tensorflow
from headrace.config import TimeoutConfig
from headrace.operator import JobHandle
from tests.faults.flink.killing import (
    cancelled_on_failure,
    processes_of_jobs,
    reported,
    require_nothing_left,
)
from tests.faults.flink.nodes import processes_by_node
from tests.faults.flink.sight import JobView
from tests.flink.jvm import make_environment
from tests.flink.kept_state import Killer
from tests.flink.processes import parent_of
from tests.flink.tensorflow_jobs import START_S, until_job
from tests.flink.test_kept_state import NARROW, RETRIES, SMALL, in_dir
from tests.flink.test_kept_training import add_slow_numbers
from tests.flink.test_operator_rows import CHECKPOINTS
from tests.flink.training_jobs import STEPS, add_sink, read_rows, split_rows
from tests.ports import free_ports

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 12_000
WORKERS = 2
UNEVEN = "CASE WHEN MOD(id, 10) = 0 THEN 1 ELSE 0 END"
TIMEOUTS = TimeoutConfig(heartbeat_every_s=0.5, heartbeat_timeout_s=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to a node of the job.

    Attributes:
        name: Of the node.
        number: The signal that its process gets.
        is_of_node: Whether the node process gets it instead.
    """

    name: str
    number: signal.Signals = signal.SIGKILL
    is_of_node: bool = False

    @property
    def cause(self) -> str:
        """What Flink is told, as a pattern."""
        if self.is_of_node:
            return f"The node process of {self.name} was ended by signal {self.number.name}"
        if self.number is signal.SIGSTOP:
            how = r"frozen: .*`timeouts\.heartbeat_timeout_s`"
        else:
            how = rf"lost[^\n]*\nThe process was ended by {self.number.name}\."
        return f"{self.name}: The process was {how}"


FAULTS = (
    Fault(name="worker-1"),
    Fault(name="ps-0"),
    Fault(name="ps-0", number=signal.SIGSTOP),
    Fault(name="worker-0"),
)
MORE_FAULTS = (
    Fault(name="ps-0", is_of_node=True),
    Fault(name="ps-0", number=signal.SIGSEGV),
)


def build(ctx: Any) -> Any:
    import keras
    import tensorflow as tf

    keras.utils.set_random_seed(1)
    with ctx.parameter_servers():
        model = keras.Sequential(
            [keras.Input((2,)), keras.layers.Dense(4), keras.layers.Dense(1)]
        )
        rows = tf.Variable(0, dtype=tf.int64, trainable=False, name="rows")
        ids = tf.Variable(0, dtype=tf.int64, trainable=False, name="ids")
    return model, keras.optimizers.Adam(0.001), rows, ids


def count(ctx: Any) -> None:
    """Train, and count rows and add up their ids, all in variables on the servers."""
    import tensorflow as tf

    model, optimizer, rows, ids = build(ctx)
    ctx.checkpointed(model=model, optimizer=optimizer, rows=rows, ids=ids)

    def step(x: Any, y: Any) -> None:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((tf.squeeze(model(x), 1) - y) ** 2)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    train_on = tf.function(step, autograph=False)
    for batch in ctx.dataset(16, shapes={"x": (2,)}, columns=["x", "y", "id"]):
        train_on(tf.cast(batch["x"], tf.float32), tf.cast(batch["y"], tf.float32))
        size = len(batch["id"])
        rows.assign_add(size)  # sent to the server, and not waited for
        ids.assign_add(tf.reduce_sum(batch["id"]))
        ctx.state["steps"] = ctx.state.get("steps", 0) + 1
        ctx.report(own_steps=ctx.state["steps"])
        same = {"step": [0] * size, "epoch": [0] * size, "error": [0.0] * size}
        ctx.emit({**same, "worker": [ctx.index] * size, "id": batch["id"].numpy()})
    ctx.report(rows=int(rows), ids=int(ids), steps=int(optimizer.iterations))
    ctx.report(own_steps=ctx.state.get("steps", 0))
    ctx.save(model)


def start(folder: Path, *, ps: int, per_second: int, **options: str) -> JobHandle:
    named = {**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(folder / "cp"), **options}
    flink = {k.replace("__", "-").replace("_", "."): v for k, v in named.items()}
    t_env = make_environment(flink, parallelism=2)
    add_slow_numbers(t_env, ROWS, per_second)
    plan = headrace.tensorflow.train(
        split_rows(t_env, UNEVEN, more=", padding"),
        count,
        workers=WORKERS,
        ps=ps,
        exchange=SMALL,
        output=STEPS,
        output_dir=folder,
        timeouts=TIMEOUTS,
        name="counted",
    )
    return plan.submit(add_sink(t_env, plan, folder / "out"))


def steps_of(job: JobHandle) -> float:
    return sum(reported(job, f"worker-{index}", "own_steps") for index in range(WORKERS))


def hit_behind_a_checkpoint(job: JobHandle, folder: Path, fault: Fault) -> None:
    """Hit it when checkpoints of this attempt are complete; wait for steps of the next."""
    checkpoints = Killer(folder, folder / "cp", 0)
    checkpoints.begin()
    begun = steps_of(job)

    def is_time() -> bool:
        checkpoints.look()
        return len(checkpoints.seen) > 2 and steps_of(job) > begun

    until_job(job, is_time, "checkpoints", START_S)
    before = processes_by_node()[fault.name]
    pid = before.process.pid
    os.kill(parent_of(pid) if fault.is_of_node else pid, fault.number)
    until_job(
        job,
        lambda: (
            (now := processes_by_node().get(fault.name)) is not None
            and now.attempt > before.attempt
            and job.status().attempt == now.attempt
            and steps_of(job) > 0
        ),
        f"steps behind {fault}",
        START_S,
    )


@pytest.mark.timeout(600)  # processes that import TensorFlow start up to six times
@pytest.mark.parametrize(
    "faults",
    [
        pytest.param(FAULTS, id="workers and server"),
        pytest.param(MORE_FAULTS, id="node and crash of a server", marks=pytest.mark.long),
    ],
)
def test_servers_hold_each_row_once_after_kills_and_from_a_savepoint(
    tmp_path: Path, faults: tuple[Fault, ...]
) -> None:
    (port,) = free_ports(1)
    seen_at = {"rest_port": str(port), "web_refresh__interval": "100"}  # ms: how old it may be
    first = start(tmp_path, ps=1, per_second=50, **seen_at)
    with cancelled_on_failure(first):
        until_job(first, lambda: steps_of(first) > 0, "steps", START_S)
        for fault in faults:
            hit_behind_a_checkpoint(first, tmp_path, fault)
        causes = JobView(port, first.job_id).failures()
        seen = processes_of_jobs()
        stopped = first.stop(tmp_path / "saved", drain=False, timeout_s=60)
    require_nothing_left(seen)
    assert 0 < stopped.status.rows_in < ROWS
    for fault, cause in zip(faults, reversed(causes), strict=True):
        assert re.search(fault.cause, cause), cause

    place = {"execution_state__recovery_path": str(stopped.savepoint)}
    second = start(tmp_path, ps=2, per_second=20_000, **place)
    with cancelled_on_failure(second):
        result = second.wait(timeout_s=150, show_progress=False)
    rows = read_rows(tmp_path / "out")
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    reports = [result.status.nodes[f"worker-{index}"].report for index in range(WORKERS)]
    assert (reports[0]["rows"], reports[0]["ids"]) == (ROWS, sum(range(ROWS)))
    assert reports[0]["steps"] == sum(report["own_steps"] for report in reports)
    assert (tmp_path / "model.keras").stat().st_size > 0
