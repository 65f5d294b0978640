"""Checkpoints of workers that train in common: each is taken at one step, from equal models."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

import headrace.pytorch
from headrace.config import TimeoutConfig
from tests.waiting import until

from .conftest import MakeEnvironment
from .paced_source import PacedSource
from .test_training import require_union, touch
from .training_jobs import (
    ROWS,
    STEPS,
    add_sink,
    build_model,
    build_optimizer,
    errors_of,
    read_rows,
    split_rows,
    trainer,
)

INTERVAL = "100 ms"
UNEVEN = "CASE WHEN MOD(id, 10) = 0 THEN 1 ELSE 0 END"
ALL_FOR_ONE = "0"
"""All rows are for worker 0; the other has none, ever."""


def noting(folder: str, models: list[Any]) -> Callable[[Any], None]:
    """Write the weights, the step and the rows at each answer of a barrier, then give it."""

    def on_start(ctx: Any) -> None:
        def capture(checkpoint: int | None) -> None:
            if checkpoint is None:
                return
            (model,) = models
            place = Path(folder) / f"{checkpoint}-{ctx.rank}"
            torch.save(model.state_dict(), place.with_suffix(".pt"))
            place.with_suffix(".json").write_text(
                json.dumps({"steps": ctx.steps, "rows": ctx._reader.rows_in})
            )

        ctx._barriers._capture = capture
        touch(f"{folder}/started-{ctx.rank}")

    return on_start


def entry_noting(folder: str) -> Callable[[Any], None]:
    """Train as the other tests do, and note the answers."""

    def entry(ctx: Any) -> None:
        models: list[Any] = []
        begin = ctx.data_parallel

        def data_parallel(model: Any, *others: Any, **how: Any) -> Any:
            models.append(model)
            return begin(model, *others, **how)

        ctx.data_parallel = data_parallel
        trainer(rows=16, on_start=noting(folder, models))(ctx)

    return entry


def train(make_t_env: MakeEnvironment, tmp_path: Path, worker: str) -> list[dict[str, Any]]:
    t_env = make_t_env(
        2,
        execution_checkpointing_interval=INTERVAL,
        execution_checkpointing_dir=(tmp_path / "checkpoints").as_uri(),
        execution_checkpointing_num__retained="100",
    )
    with PacedSource(slowly(tmp_path)) as source:
        source.add_table(t_env, "numbers")
        plan = headrace.pytorch.train(
            split_rows(t_env, worker),
            entry_noting(str(tmp_path)),
            workers=2,
            output=STEPS,
            output_dir=tmp_path,
            name="barriers",
        )
        plan.submit(add_sink(t_env, plan, tmp_path / "out")).wait(timeout_s=100)
    return read_rows(tmp_path / "out")


def slowly(folder: Path) -> Callable[[Callable[[Iterable[int]], None]], None]:
    """Send the rows in about three seconds, and some only after a few checkpoints."""

    def completed() -> int:
        return len(list((folder / "checkpoints").glob("*/chk-*/_metadata")))

    def script(send: Callable[[Iterable[int]], None]) -> None:
        until(lambda: all((folder / f"started-{rank}").exists() for rank in range(2)))
        before = completed()
        for start in range(0, ROWS, 20):
            if start == 800:
                until(lambda: completed() >= before + 5, "completed checkpoints")
            send(range(start, min(start + 20, ROWS)))
            threading.Event().wait(0.05)

    return script


def answers(folder: Path) -> dict[int, list[dict[str, Any]]]:
    """Return what both workers were at each checkpoint that both have answered."""
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for place in sorted(folder.glob("*-[01].json")):
        weights = torch.load(place.with_suffix(".pt"), weights_only=True)
        note = json.loads(place.read_text())
        found[int(place.stem.partition("-")[0])].append({**note, "weights": weights})
    return {checkpoint: both for checkpoint, both in found.items() if len(both) == 2}


def require_common(found: dict[int, list[dict[str, Any]]]) -> None:
    for one, two in found.values():
        assert one["steps"] == two["steps"]
        for name, value in one["weights"].items():
            assert torch.equal(value, two["weights"][name])


def test_workers_answer_each_checkpoint_at_one_step_with_equal_weights(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    rows = train(make_t_env, tmp_path, UNEVEN)
    assert sorted(row["id"] for row in rows) == list(range(ROWS))
    require_union(rows, tmp_path)  # checkpoints change no step
    found = answers(tmp_path)
    require_common(found)
    assert len(found) >= 5
    for each in found.values():
        of_worker = [
            sum(row["worker"] == rank and row["step"] <= each[0]["steps"] for row in rows)
            for rank in range(2)
        ]
        assert [one["rows"] for one in each] == of_worker


def test_a_worker_that_never_gets_a_row_answers_with_the_other(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    rows = train(make_t_env, tmp_path, ALL_FOR_ONE)
    require_union(rows, tmp_path)
    found = answers(tmp_path)
    require_common(found)
    assert len(found) >= 5
    assert {each[1]["rows"] for each in found.values()} == {0}
    assert len({each[0]["steps"] for each in found.values()}) >= 3


def reads_before_the_common_steps(ctx: Any) -> None:
    """Worker 0 answers a barrier by itself, which worker 1 reaches in the common training."""
    model = build_model()
    optimizer, _ = build_optimizer(model)
    if ctx.rank == 0:
        batches = ctx.batches(rows=16)
        while ctx._barriers.newest < 0:
            next(batches)
    lost = ctx._barriers.newest
    ctx.data_parallel(model, optimizer)
    for batch in ctx.batches(rows=16):
        optimizer.zero_grad()
        loss: Any = errors_of(model, batch["x"], batch["y"]).mean()
        loss.backward()
        optimizer.step()
        ctx.report(lost=lost)


def test_a_barrier_without_a_common_step_is_declined_at_once(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(
        2,
        execution_checkpointing_interval=INTERVAL,
        execution_checkpointing_dir=tmp_path.as_uri(),
        execution_checkpointing_num__retained="1000",
        execution_checkpointing_tolerable__failed__checkpoints="1000",
    )
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE numbers (id BIGINT) WITH ('connector'='datagen', "
        "'number-of-rows'='6000', 'fields.id.kind'='sequence', 'fields.id.start'='0', "
        "'fields.id.end'='5999', 'rows-per-second'='300')"
    )
    completed: set[int] = set()

    def look() -> bool:
        found = tmp_path.glob("*/chk-*/_metadata")
        completed.update(int(path.parent.name.removeprefix("chk-")) for path in found)
        return ended.isDone()  # type: ignore[no-any-return]

    job = headrace.pytorch.train(
        split_rows(t_env, "MOD(id, 2)"),
        reads_before_the_common_steps,
        workers=2,
        name="declined",
        timeouts=TimeoutConfig(checkpoint_hold_timeout_s=1_000),  # nothing else ends the wait
    ).submit()
    ended = job._j_client.getJobExecutionResult()
    until(look, "end of the job", 100.0)
    lost = int(job.wait(show_progress=False).status.nodes["worker-0"].report["lost"])
    assert lost not in completed
    assert max(completed) > lost
