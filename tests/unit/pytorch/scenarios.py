"""Many small trainings in one set of processes, and the same steps made by plain torch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import torch
from torch import nn
from torch.utils.data import DataLoader

from headrace.config import TimeoutConfig
from headrace.framework.local import run_local
from headrace.framework.local_role import LocalRole
from headrace.pytorch import TorchEntry, TorchSettings
from headrace.testing import Fault, RunResult
from headrace.testing.split import Split, split_table
from headrace.testing.worker import FedEntry, read_result
from tests.unit.pytorch.recipes import RECIPES, Recipe

SCHEMA = pa.schema([("step", pa.int64()), ("epoch", pa.int64()), ("id", pa.int64())])
_LIMITS = TimeoutConfig(collective_timeout_s=30.0, gather_timeout_s=60.0)
_FEATURES = 3


def build_table(rows: int, dtype: Any = np.float64) -> pa.Table:
    """Rows with an id, a kind (0 in the first half, 1 in the second), features and a target."""
    random = np.random.default_rng(5)
    x = random.normal(size=(rows, _FEATURES))
    y = x @ np.array([1.0, -2.0, 0.5]) + 0.3
    lists = pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1, dtype=np.int32) * _FEATURES),
        pa.array(x.astype(dtype).reshape(-1)),
    )
    kind = (np.arange(rows) >= rows // 2).astype(np.int64)
    return pa.table({"id": np.arange(rows), "kind": kind, "x": lists, "y": y.astype(dtype)})


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One training: how the rows are split, read and trained on."""

    recipe: str = "momentum"
    split: Split | None = None
    faults: Sequence[Fault] = ()
    loader: str = "none"
    total_rows: int = 101  # divides by neither workers nor batches
    rows: int = 8
    epochs: int = 1

    def table(self) -> pa.Table:
        return build_table(self.total_rows, RECIPES[self.recipe].numpy_dtype)

    def __call__(self, ctx: Any) -> None:
        recipe = RECIPES[self.recipe]
        model = recipe.model()
        optimizer = recipe.optimizer(model)
        scheduler = recipe.scheduler(optimizer) if recipe.scheduler else None
        clip = recipe.clipper(model)
        ctx.data_parallel(
            model,
            optimizer,
            scheduler,
            loss_reduction=recipe.reduction,
            before_step=clip if recipe.clips == "before_step" else None,
        )
        held: list[tuple[int, int]] = []
        for number, batch in enumerate(self._batches(ctx), 1):
            recipe.backward(model, batch)
            held += [(ctx.epoch, row) for row in batch["id"].tolist()]
            if number % recipe.accumulate:
                continue
            step = ctx.steps + 1
            if recipe.clips == "explicit":
                ctx.all_reduce_gradients()
                clip()
            recipe.step(optimizer)
            if scheduler is not None:
                scheduler.step()
            epochs, ids = zip(*held, strict=True)
            ctx.emit({"step": [step] * len(ids), "epoch": epochs, "id": ids})
            held.clear()
        ctx.save(model)
        state = model.state_dict()
        ctx.report(steps=ctx.steps, **{name: float(v.sum()) for name, v in state.items()})

    def _batches(self, ctx: Any) -> Iterator[Any]:
        if self.loader == "none":
            return iter(ctx.batches(rows=self.rows))
        if self.loader == "batches":
            return iter(DataLoader(ctx.dataset(rows=self.rows), batch_size=None))
        return iter(DataLoader(ctx.dataset(), batch_size=self.rows))


def run_all(
    scenarios: Mapping[str, Scenario], *, workers: int, directory: Path
) -> Mapping[str, RunResult]:
    """Run each scenario with that many workers, all in the same processes."""
    for name in scenarios:
        (directory / name).mkdir()
    series = _Series(dict(scenarios), workers, directory)
    role = LocalRole(entry=series, parallelism=workers)
    run_local({"worker": role}, timeouts=_LIMITS, timeout_s=280.0)
    return {
        name: RunResult(
            workers=tuple(
                read_result(directory / name, f"worker-{index}") for index in range(workers)
            ),
            saved=(directory / name / "model.pt",),
        )
        for name in scenarios
    }


@dataclass
class _Series:
    """The entry function of each process; a scenario is an attempt with a group of its own."""

    scenarios: dict[str, Scenario]
    workers: int
    directory: Path

    def __call__(self, spec: Any, link: Any) -> None:
        for number, (name, scenario) in enumerate(self.scenarios.items(), 1):
            work_dir = Path(spec.work_dir) / str(number)
            work_dir.mkdir()
            result_dir = self.directory / name
            table = scenario.table()
            fed = FedEntry(
                entry=TorchEntry(
                    scenario, TorchSettings(epochs=scenario.epochs, output_dir=result_dir)
                ),
                tables=split_table(
                    table, self.workers, split=scenario.split, batch_rows=scenario.rows
                ),
                output_schema=SCHEMA,
                batch_rows=scenario.rows,
                faults=tuple(scenario.faults),
                result_dir=result_dir,
            )
            try:
                fed(msgspec.structs.replace(spec, attempt=number, work_dir=str(work_dir)), link)
            except Exception as error:
                msg = f"scenario {name!r} of {self.workers} workers failed"
                raise RuntimeError(msg) from error


@dataclass
class Steps:
    """Which rows each worker put into each common step."""

    parts: dict[int, dict[int, list[int]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )

    @classmethod
    def of(cls, result: RunResult) -> Steps:
        steps = cls()
        for worker, each in enumerate(result.workers):
            assert each.emitted is not None
            columns = each.emitted.to_pydict()
            for step, row in zip(columns["step"], columns["id"], strict=True):
                steps.parts[step][worker].append(row)
        return steps

    def unions(self) -> Iterator[list[int]]:
        """Rows of each step, whoever had them."""
        for step in sorted(self.parts):
            yield [row for rows in self.parts[step].values() for row in rows]


def replay(recipe: Recipe, table: pa.Table, unions: Iterator[list[int]]) -> nn.Module:
    """Train one process with plain torch in float64 on the union of the rows of each step."""
    columns = tensors(table)
    model = recipe.model().double()
    optimizer = recipe.optimizer(model)
    scheduler = recipe.scheduler(optimizer) if recipe.scheduler else None
    clip = recipe.clipper(model)
    for ids in unions:
        batch = {name: column[ids] for name, column in columns.items()}
        recipe.backward(model, batch, share=1.0)
        if recipe.clips is not None:
            clip()
        recipe.step(optimizer)
        if scheduler is not None:
            scheduler.step()
    return model


def tensors(table: pa.Table) -> dict[str, torch.Tensor]:
    """Columns of a table; floating point in float64."""
    x = table["x"].combine_chunks().flatten()
    return {
        "id": torch.tensor(table["id"].to_numpy()),
        "kind": torch.tensor(table["kind"].to_numpy()),
        "x": torch.tensor(x.to_numpy()).double().reshape(-1, _FEATURES),
        "y": torch.tensor(table["y"].to_numpy()).double(),
    }


def require_same_model(
    saved: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], tolerance: float
) -> None:
    """Compare every tensor of two models; relative tolerance, and absolute around zero."""
    assert saved.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            saved[name].double(),
            value.double(),
            rtol=tolerance,
            atol=tolerance,
            msg=partial(_named, name),
        )


def _named(name: str, text: str) -> str:
    return f"{name}: {text}"


def plain_loop(scenario: Scenario) -> nn.Module:
    """Train without Headrace on a table's batches in order, in the model's own type."""
    recipe = RECIPES[scenario.recipe]
    columns = {
        name: column.to(recipe.dtype) if column.is_floating_point() else column
        for name, column in tensors(scenario.table()).items()
    }
    model = recipe.model()
    optimizer = recipe.optimizer(model)
    scheduler = recipe.scheduler(optimizer) if recipe.scheduler else None
    starts = [*range(0, scenario.total_rows, scenario.rows)] * scenario.epochs
    for number, start in enumerate(starts, 1):
        rows = slice(start, start + scenario.rows)
        recipe.backward(model, {name: column[rows] for name, column in columns.items()})
        if number % recipe.accumulate:
            continue
        if recipe.clips is not None:
            recipe.clipper(model)()
        recipe.step(optimizer)
        if scheduler is not None:
            scheduler.step()
    return model
