"""TensorFlow on rows from Flink, with all its roles; rows and models are checked."""

from __future__ import annotations

import itertools
import json
import sys
import threading
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from pyflink.table import DataTypes

import headrace.tensorflow
from headrace.operator import JobHandle
from tests.faults.flink.sight import members
from tests.waiting import pause_for

from .conftest import MakeEnvironment
from .system import mapped_files
from .tensorflow_jobs import (
    build_model,
    evaluate,
    fits,
    held,
    notes_of,
    step_function,
    steps_together,
    until_job,
)
from .test_board_role import page
from .training_jobs import (
    ROWS,
    STEPS,
    add_numbers,
    add_sink,
    columns_of,
    ids_by_step,
    read_rows,
    split_rows,
)

cloudpickle.register_pickle_by_value(sys.modules[__name__])

EPOCHS = 2
UNEVEN = "CASE WHEN MOD(id, 10) = 0 THEN 1 ELSE 0 END"
TORCH = "/torch/"
TENSORFLOW = "/tensorflow/"


def slow_is_the_second(index: int) -> None:
    if index == 1:
        pause_for(0.1)


@pytest.mark.timeout(300)  # six processes, five of which import TensorFlow
def test_every_role_does_its_part_on_a_stream_and_every_row_comes_out_in_every_epoch(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(3)
    add_numbers(t_env)
    plan = headrace.tensorflow.train(
        split_rows(t_env, UNEVEN),
        fits(str(tmp_path), slow_is_the_second),
        workers=3,
        ps=1,
        evaluator=evaluate,
        tensorboard=True,
        epochs=EPOCHS,
        output={
            "worker": DataTypes.INT(),
            "epoch": DataTypes.INT(),
            "id": DataTypes.BIGINT(),
        },
        output_dir=tmp_path,
        checkpoint_dir=tmp_path / "checkpoints",
        name="parts",
    )
    statements = add_sink(t_env, plan, tmp_path / "out", "worker INT, epoch INT, id BIGINT")
    job = plan.submit(statements)
    with held(tmp_path):
        until_job(job, lambda: all(notes_of(tmp_path, f"worker-{i}") for i in range(3)))
        require_own_libraries()
        until_job(job, lambda: job.status().nodes["evaluator-0"].report.get("step") == EPOCHS)
        require_scalars(job)
    result = job.wait(timeout_s=100)
    require_every_row(read_rows(tmp_path / "out"))
    nodes = result.status.nodes
    assert [nodes[f"worker-{i}"].state for i in range(3)] == ["finished"] * 3
    others = {name: node.state for name, node in nodes.items() if "worker" not in name}
    assert others == dict.fromkeys(("ps-0", "evaluator-0", "tensorboard-0"), "stopped")
    assert [nodes[f"worker-{i}"].rows_in for i in range(3)] == [902, 101, 0]
    noted = [notes_of(tmp_path, f"worker-{i}")[0] for i in range(3)]
    batches = [each["batches"] for each in noted]
    assert batches == [EPOCHS * 15, EPOCHS * 2, 0]
    assert {nodes[f"worker-{i}"].report["iterations"] for i in range(2)} == {sum(batches)}
    assert not [each for each in noted if "torch" in each["modules"]]
    assert nodes["evaluator-0"].report["loss"] > 0
    require_model(tmp_path / "model.keras")


def test_beside_a_chief_on_the_stream_worker_0_saves_when_the_rows_have_ended(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def lead(ctx: Any) -> None:
        with ctx.parameter_servers():
            model = build_model()
        ctx.save(model)
        ctx.report(leads=ctx.is_chief)
        ctx.publish("led", str(ctx.output_path("model.keras").exists()))
        threading.Event().wait()  # until it is stopped

    def fit(ctx: Any) -> None:
        with ctx.parameter_servers():
            model = build_model()
        model.compile("adam", "mse")
        assert ctx.lookup("led", 60.0) == "False", "the chief has saved before a row came"
        rows = ctx.dataset(64, shapes={"x": (2,)}).map(lambda row: (row["x"], row["y"]))
        model.fit(rows, epochs=ctx.epochs, verbose=0)
        ctx.save(model)
        ctx.report(leads=ctx.is_chief)

    t_env = make_t_env(1)
    add_numbers(t_env)
    plan = headrace.tensorflow.train(
        split_rows(t_env, "0"),
        fit,
        ps=1,
        chief=lead,
        epochs=EPOCHS,
        output_dir=tmp_path,
        name="led",
    )
    nodes = plan.submit().wait(timeout_s=100).status.nodes
    assert {name: node.state for name, node in nodes.items()} == {
        "chief-0": "stopped",
        "ps-0": "stopped",
        "worker-0": "finished",
    }
    assert nodes["worker-0"].rows_in == ROWS
    assert nodes["worker-0"].report["leads"] == 0
    assert nodes["chief-0"].report["leads"] == 1
    require_model(tmp_path / "model.keras")


def require_own_libraries() -> None:
    """Master and node have no framework, other processes have the one that they need."""
    mapped: dict[str, list[str]] = {"master": [], "node": [], "process": []}
    for member in members():
        mapped[member.kind].append("\n".join(mapped_files(member.pid)))
    assert {kind: len(found) for kind, found in mapped.items()} == {
        "master": 1,
        "node": 6,
        "process": 5,  # and TensorBoard
    }
    every = [text for found in mapped.values() for text in found]
    assert not [text for text in every if TORCH in text]
    assert not [text for text in (*mapped["master"], *mapped["node"]) if TENSORFLOW in text]
    assert all(TENSORFLOW in text for text in mapped["process"])


def require_scalars(job: JobHandle) -> None:
    """TensorBoard shows what the processes have reported."""

    def tags() -> set[tuple[str, str]]:
        url = job.status().nodes["tensorboard-0"].url
        runs = json.loads(page(f"{url}/data/plugin/scalars/tags") or "{}")
        return {(Path(run).name, tag) for run, found in runs.items() for tag in found}

    expected = {("worker-0", "loss"), ("worker-1", "loss"), ("evaluator-0", "loss")}
    until_job(job, lambda: tags() >= expected, "the scalars of every role")


def require_every_row(rows: list[dict[str, Any]]) -> None:
    seen = Counter((row["epoch"], row["id"]) for row in rows)
    assert seen == Counter((epoch, i) for epoch in range(EPOCHS) for i in range(ROWS))
    assert all(row["worker"] == int(row["id"] % 10 == 0) for row in rows)


def require_model(path: Path) -> None:
    """It loads without Headrace, and has learned."""
    import keras

    x, y = (each.numpy() for each in columns_of(range(ROWS)))
    errors = [
        float(((model(x).numpy()[:, 0] - y) ** 2).mean())
        for model in (build_model(), keras.models.load_model(path))
    ]
    assert errors[1] < errors[0]


def test_two_workers_on_a_stream_equal_one_process_on_the_union(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    import keras
    import numpy as np
    import tensorflow as tf

    t_env = make_t_env(2)
    add_numbers(t_env)
    plan = headrace.tensorflow.train(
        split_rows(t_env, UNEVEN),
        steps_together,
        workers=2,
        epochs=EPOCHS,
        output=STEPS,
        output_dir=tmp_path,
        name="union",
    )
    result = plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    rows = read_rows(tmp_path / "out")
    require_every_row(rows)
    assert result.status.rows_in == ROWS
    by_step = ids_by_step(rows)
    assert {node.report["steps"] for node in result.status.nodes.values()} == {len(by_step)}
    model, optimizer = build_model(), keras.optimizers.Adam(0.02)
    step = step_function(tf, model, optimizer)
    errors: dict[tuple[int, int], float] = {}
    for number, ids in enumerate(by_step, start=1):
        found = step(*(each.numpy() for each in columns_of(ids))).numpy()
        errors.update({(number, i): error for i, error in zip(ids, found, strict=True)})
    for row in rows:
        assert row["error"] == pytest.approx(errors[row["step"], row["id"]], rel=1e-6, abs=1e-9)
    saved = keras.models.load_model(tmp_path / "model.keras")
    for mine, expected in zip(saved.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-9)


def stop_early(ctx: Any, after: int) -> None:
    """An evaluator that has seen enough."""
    for step, _ in ctx.follow_checkpoints():
        ctx.report(step=step)
        if step >= after:
            ctx.stop_job("good enough")


@pytest.mark.parametrize("mode", ["stream", "batch"])
def test_an_evaluator_stops_the_job_early(
    make_t_env: MakeEnvironment, tmp_path: Path, mode: str
) -> None:
    def entry(ctx: Any) -> None:
        steps = ctx.dataset(10) if mode == "stream" else itertools.repeat(None)
        for step, _ in enumerate(steps, start=1):
            with ctx.checkpoint_path(step, keep=3) as path:
                path.write_text("weights")
            pause_for(0.05)

    t_env = make_t_env(1)
    if mode == "stream":
        t_env.execute_sql(
            "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
            "'rows-per-second'='1000')"  # for ever
        )
    plan = headrace.tensorflow.train(
        t_env.from_path("numbers") if mode == "stream" else None,
        entry,
        evaluator=partial(stop_early, after=4),
        checkpoint_dir=tmp_path,
        name="enough",
    )
    result = plan.submit().wait(timeout_s=100)
    assert result.status.state == "FINISHED"
    assert "good enough" in str(result.status.reason)
    assert result.status.nodes["evaluator-0"].report["step"] >= 4
    assert {node.state for node in result.status.nodes.values()} == {"stopped"}
    assert (result.status.rows_in > 0) == (mode == "stream")
