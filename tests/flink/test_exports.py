"""A job on a stream writes the model of each completed checkpoint, and serves it meanwhile."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch
from pyflink.table import DataTypes, StreamTableEnvironment
from torch import nn

import headrace.pytorch
import headrace.tensorflow
from headrace.errors import JobFailedError, PlanError
from headrace.pytorch import TorchModel
from tests.waiting import until

from .conftest import MakeEnvironment
from .exported import (
    ALL_KEPT,
    CHECKPOINTS,
    KEEP_EXPORTS,
    SERVED,
    add_endless_numbers,
    ids_in,
    objects_in,
    require_rows_of_versions,
    rows_to_train_and_to_score,
    serve_while_training,
)
from .kept_state import Killer, Turns
from .test_kept_state import NARROW, RETRIES, SMALL, in_dir
from .test_kept_training import UNEVEN
from .test_operator_rows import numbers
from .training_jobs import STEPS, add_sink, split_rows, trainer

cloudpickle.register_pickle_by_value(sys.modules[__name__])

LIMIT_S = 100.0


@pytest.mark.timeout(200)
def test_each_version_is_the_model_of_its_checkpoint_also_behind_a_kill(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    checkpoints, served = tmp_path / "cp", tmp_path / "served"
    options = {**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(checkpoints)}
    t_env = make_t_env(2, **options, **ALL_KEPT)
    turns = Turns(Killer(tmp_path, checkpoints, 1), 0)  # who exports
    add_endless_numbers(t_env)
    plan = headrace.pytorch.train(
        split_rows(t_env, UNEVEN, more=", padding"),
        trainer(rows=16, keeps=True, on_start=turns.begin, after_batch=turns.look),
        workers=2,
        exchange=SMALL,
        output=STEPS,
        output_dir=tmp_path,
        export_to=served,
        name="trained",
    )
    job = plan.submit(add_sink(t_env, plan, tmp_path / "out"))
    try:
        until(lambda: list(tmp_path.glob("death-*")), "the kill", LIMIT_S)
        before = max(ids_in(served), default=0)
        until(lambda: max(ids_in(served), default=0) >= before + 5, "later versions", LIMIT_S)
        seen: set[int] = set()
        while len(seen) < 3:  # some go while they are looked at
            for checkpoint_id in ids_in(served):
                path = served / f"checkpoint-{checkpoint_id}.pt"
                if checkpoint_id not in seen and path.exists():
                    version = torch.load(path, weights_only=True)
                    state = objects_in(checkpoints, checkpoint_id)["model"]
                    assert version.keys() == state.keys()
                    assert all(torch.equal(version[name], state[name]) for name in state)
                    seen.add(checkpoint_id)
        until(lambda: len(ids_in(served)) <= 3, "the end of the older ones", LIMIT_S)
        latest = torch.load(served / "latest.pt", weights_only=True)
        assert latest.keys() == version.keys()

        def reported() -> list[float | None]:
            nodes = job.status().nodes
            return [
                nodes[f"worker-{rank}"].report.get("exported_checkpoint") for rank in (0, 1)
            ]

        until(
            lambda: (reported()[0] or 0) > before,
            "the metric",
            explain=lambda: f"{job.status()}",
        )
        assert reported()[1] is None, "one process exports"
    finally:
        job.cancel()
    with pytest.raises(JobFailedError):
        job.wait(timeout_s=LIMIT_S, show_progress=False)


class Factor(nn.Module):
    """Multiplies by its parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = x * self.factor
        return product


def count_rows(ctx: Any, *, as_graph: bool = False) -> None:
    """Train a model whose factor is the number of rows that it has been trained on."""
    model = Factor()
    ctx.checkpointed(model=model)
    if as_graph:
        ctx.exported(model, example=(torch.zeros(2),))
    for batch in ctx.batches(rows=16):
        with torch.no_grad():
            model.factor.add_(len(batch["id"]))


def factor_of_state(path: Path) -> float:
    return float(torch.load(path, weights_only=True)["factor"].item())


def factor_of_graph(path: Path) -> float:
    return float(torch.export.load(path).state_dict["factor"].item())


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    ("suffix", "model", "factor_of"),
    [
        pytest.param(".pt", (Factor,), factor_of_state, id="state dict"),
        pytest.param(".pt2", (), factor_of_graph, id="graph of torch.export"),
    ],
)
def test_a_job_serves_the_model_that_it_trains(
    make_t_env: MakeEnvironment,
    tmp_path: Path,
    suffix: str,
    model: tuple[Any, ...],
    factor_of: Callable[[Path], float],
) -> None:
    served = tmp_path / "served"
    t_env = make_t_env(**CHECKPOINTS, **in_dir(tmp_path / "cp"))
    to_train, to_score = rows_to_train_and_to_score(t_env)
    plan = headrace.pytorch.train(
        to_train,
        partial(count_rows, as_graph=suffix == ".pt2"),
        export_to=served,
        keep_exports=KEEP_EXPORTS,
        name="counted",
    )
    scored = headrace.pytorch.predict(
        to_score,
        TorchModel(served / f"latest{suffix}", *model),
        inputs="x",
        outputs={"y": DataTypes.FLOAT()},
        **SERVED,
    )
    rows = serve_while_training(t_env, plan, scored, tmp_path, LIMIT_S)
    require_rows_of_versions(rows, served, suffix, factor_of)


def test_where_no_checkpoint_can_be_exported_is_told_when_it_is_planned(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    rows = numbers(t_env, 3)
    plan = headrace.pytorch.train(rows, count_rows, export_to=tmp_path, name="a")
    for submit in (plan.submit, plan.cluster.submit):
        told = r"export_to=.*set `execution.checkpointing.interval`"
        with pytest.raises(PlanError, match=told):
            submit()
    with pytest.raises(PlanError, match="Here each reads its own files"):
        headrace.pytorch.train(None, count_rows, export_to=tmp_path, name="b")
    with pytest.raises(PlanError, match=r"export_to='s3://models/delay' must be a directory"):
        headrace.pytorch.train(rows, count_rows, export_to="s3://models/delay", name="c")
    with pytest.raises(PlanError, match="variables are on parameter servers"):
        headrace.tensorflow.train(rows, count_rows, ps=1, export_to=tmp_path, name="d")
    assert not list(tmp_path.iterdir())
