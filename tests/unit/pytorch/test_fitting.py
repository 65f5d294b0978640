"""What the workers of a `TorchEstimator` do: the content of model and history is checked."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from headrace import testing
from headrace.config import TimeoutConfig
from headrace.errors import ConfigError, DataError, UserCodeError
from headrace.estimator import EarlyStopping, FitRecord, History
from headrace.pytorch import TorchEntry, TorchEstimator, TorchSettings
from headrace.role import HELD_OUT

pytestmark = pytest.mark.timeout(120)

BATCH = 16
WEIGHTS = np.array([1.0, -2.0, 0.5])


class Line(nn.Module):
    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(width, 1).double()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x.double())
        return out


def rows(count: int, seed: int = 5) -> pa.Table:
    """Features a, b, c, and the label y, which a line explains."""
    x = np.random.default_rng(seed).normal(size=(count, 3)).astype(np.float32)
    y = x.astype(np.float64) @ WEIGHTS + 0.3
    return pa.table({"a": x[:, 0], "b": x[:, 1], "c": x[:, 2], "y": y})


def marked(table: pa.Table, held_out: pa.Table) -> pa.Table:
    """Both tables as the planner unites them, their rows mixed."""
    both = pa.concat_tables([table, held_out])
    mark = np.arange(len(both)) >= len(table)
    order = np.random.default_rng(1).permutation(len(both))
    # Rows of each kind stay in order, as they do in Flink.
    kinds = mark[order]
    places = np.empty(len(both), np.int64)
    places[~kinds] = np.arange(len(table))
    places[kinds] = np.arange(len(table), len(both))
    return both.append_column(HELD_OUT, pa.array(mark)).take(pa.array(places))


def estimator(**changes: Any) -> TorchEstimator:
    chosen: dict[str, Any] = {
        "model": Line,
        "loss": nn.MSELoss(),
        "optimizer": functools.partial(torch.optim.SGD, lr=0.1),
        "features": ["a", "b", "c"],
        "label": "y",
        "batch_rows": BATCH,
        "epochs": 2,
    }
    return TorchEstimator(**{**chosen, **changes})


def fit(
    chosen: TorchEstimator,
    tables: Sequence[pa.Table],
    folder: Path,
    *,
    has_held_out: bool = False,
    timeouts: TimeoutConfig | None = None,
    idle_after_s: float = 0.1,
) -> tuple[dict[str, Any], History]:
    """Fit with one worker for each table; return the saved state and the history."""
    chosen._require_parameters()
    settings = TorchSettings(
        epochs=chosen.epochs,
        output_dir=folder,
        has_held_out=has_held_out,
        idle_after_s=idle_after_s,
        device="cpu",
    )
    testing.run(
        TorchEntry(chosen._fitting(FitRecord.of(chosen)), settings),
        pa.concat_tables(tables),
        workers=len(tables),
        split=list(tables) if len(tables) > 1 else None,
        timeouts=timeouts,
        timeout_s=100.0,
    )
    state = torch.load(folder / "model.pt", weights_only=True)
    return state, History.from_json((folder / "history.json").read_text())


def matrix(table: pa.Table) -> torch.Tensor:
    return torch.from_numpy(np.stack([table[name].to_numpy() for name in "abc"], 1))


def mean_square(state: dict[str, Any], table: pa.Table) -> float:
    model = Line()
    model.load_state_dict(state)
    with torch.no_grad():
        errors = model(matrix(table))[:, 0] - torch.tensor(table["y"].to_numpy())
    return float((errors**2).mean())


def plain(table: pa.Table, epochs: int) -> dict[str, Any]:
    """The same steps in torch alone."""
    torch.manual_seed(0)
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, y = matrix(table), torch.tensor(table["y"].to_numpy())
    for _ in range(epochs):
        for start in range(0, len(y), BATCH):
            part = slice(start, start + BATCH)
            optimizer.zero_grad()
            loss: Any = nn.functional.mse_loss(model(x[part])[:, 0], y[part])
            loss.backward()
            optimizer.step()
    return dict(model.state_dict())


def require_same(
    found: dict[str, Any], wanted: dict[str, Any], rtol: float = 0.0, atol: float = 0.0
) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=rtol, atol=atol)


def test_one_worker_makes_the_steps_of_a_plain_loop_bit_for_bit(tmp_path: Path) -> None:
    table = rows(101)
    state, history = fit(estimator(), [table], tmp_path)
    require_same(state, plain(table, 2))
    assert list(history["rows"]) == [101.0] * 2
    assert "val_loss" not in history


def test_two_workers_see_the_same_held_out_rows_as_one_and_find_the_same_line(
    tmp_path: Path,
) -> None:
    table, held_out = rows(400), rows(90, seed=6)
    chosen = estimator(epochs=12, metrics={"mae": nn.functional.l1_loss})
    whole = marked(table, held_out)
    alone, of_one = fit(chosen, [whole], tmp_path / "one", has_held_out=True)
    # The second worker has few rows to train on, the first few that are held out.
    parts = [marked(table[:300], held_out[:10]), marked(table[300:], held_out[10:])]
    shared, of_two = fit(chosen, parts, tmp_path / "two", has_held_out=True)
    require_same(shared, alone, rtol=0.01, atol=0.01)
    for state, history in ((alone, of_one), (shared, of_two)):
        assert list(history["rows"]) == [400.0] * 12
        assert list(history["val_rows"]) == [90.0] * 12
        assert history["val_loss"][-1] == pytest.approx(mean_square(state, held_out), rel=1e-6)
        assert history["val_mae"][-1] < 0.02
        assert history["val_loss"][-1] < min(0.001, history["val_loss"][0])


def test_metrics_get_outputs_without_a_graph(tmp_path: Path) -> None:
    def spread(outputs: torch.Tensor, labels: torch.Tensor) -> Any:
        return np.abs(outputs.numpy() - labels.numpy()).mean()

    _, history = fit(estimator(metrics={"spread": spread}), [rows(40)], tmp_path)
    assert history["spread"][1] < history["spread"][0]


@pytest.mark.parametrize("lacks", ["rows to train on", "rows held out", "rows"])
def test_a_worker_that_lacks_rows_takes_part_in_everything(lacks: str, tmp_path: Path) -> None:
    table, held_out = rows(100), rows(30, seed=6)
    none = table[:0]
    first, second = {
        "rows to train on": (marked(table, held_out[:20]), marked(none, held_out[20:])),
        "rows held out": (marked(table[:60], held_out), marked(table[60:], none)),
        "rows": (marked(table, held_out), marked(none, none)),
    }[lacks]
    stopping = EarlyStopping(patience=1, min_delta=100.0)
    chosen = estimator(epochs=5, early_stopping=stopping)
    state, history = fit(chosen, [second, first], tmp_path, has_held_out=True)
    assert (history.epochs, history.best_epoch) == (2, 0)
    assert list(history["rows"]) == [100.0] * 2
    assert list(history["val_rows"]) == [30.0] * 2
    assert history["val_loss"][0] == pytest.approx(mean_square(state, held_out), rel=1e-9)
    if lacks != "rows held out":  # all steps are those of one worker
        require_same(state, plain(table, 1), rtol=1e-9, atol=1e-12)


def test_early_stopping_stops_and_keeps_the_best_model(tmp_path: Path) -> None:
    """A rate that grows makes the model worse and worse after the first epochs."""
    table, held_out = rows(100), rows(40, seed=6)

    def growing(optimizer: torch.optim.Optimizer) -> Any:
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 3.0)

    chosen = estimator(epochs=50, schedule=growing, early_stopping=EarlyStopping(patience=2))
    both = marked(table, held_out)
    state, history = fit(chosen, [both], tmp_path / "best", has_held_out=True)
    losses = history["val_loss"]
    best = min(range(len(losses)), key=losses.__getitem__)
    assert history.best_epoch == best
    assert history.epochs == best + 3 < 50
    assert mean_square(state, held_out) == pytest.approx(losses[best], rel=1e-9)
    rates = [0.1 * 3.0**epoch for epoch in range(history.epochs)]
    assert list(history["learning_rate"]) == pytest.approx(rates)
    last = EarlyStopping(patience=2, restore_best=False)
    chosen.set_params(early_stopping=last)
    state, history = fit(chosen, [both], tmp_path / "last", has_held_out=True)
    assert mean_square(state, held_out) == pytest.approx(history["val_loss"][-1], rel=1e-9)


def test_a_schedule_by_steps_and_one_that_looks_at_the_loss_change_the_rate(
    tmp_path: Path,
) -> None:
    steps = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    chosen = estimator(schedule=steps, schedule_every="step", epochs=2)
    _, history = fit(chosen, [rows(3 * BATCH)], tmp_path / "steps")
    assert list(history["learning_rate"]) == pytest.approx([0.1, 0.1 / 8])
    plateau = functools.partial(
        torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=1e9
    )
    chosen = estimator(schedule=plateau, epochs=4)
    _, history = fit(chosen, [rows(50)], tmp_path / "plateau")
    assert list(history["learning_rate"]) == pytest.approx([0.1, 0.01, 1e-3, 1e-4])


def test_whole_numbers_are_classes_or_values_as_the_outputs_want(tmp_path: Path) -> None:
    x = np.random.default_rng(2).normal(size=300).astype(np.float32)
    table = pa.table({"x": x, "kind": pa.array((x > 0).astype(np.int32))})
    common: dict[str, Any] = {
        "features": ["x"],
        "label": "kind",
        "optimizer": functools.partial(torch.optim.Adam, lr=0.1),
        "epochs": 4,
    }
    classes = estimator(
        model=functools.partial(nn.Linear, 1, 2), loss=nn.CrossEntropyLoss(), **common
    )
    state, history = fit(classes, [table], tmp_path / "classes")
    assert state["weight"][1, 0] - state["weight"][0, 0] > 1.0
    assert history["loss"][-1] < 0.3
    values = estimator(
        model=functools.partial(nn.Linear, 1, 1), loss=nn.BCEWithLogitsLoss(), **common
    )
    state, _ = fit(values, [table], tmp_path / "values")
    assert state["weight"][0, 0] > 1.0


def test_features_of_every_form_reach_the_module(tmp_path: Path) -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(()))

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            assert first.shape == (len(second), 2)
            return self.scale * (first.sum(1) + second)

    table = rows(200)
    total = table["a"].to_numpy() + table["b"].to_numpy() + table["c"].to_numpy()
    table = table.append_column("total", pa.array(3 * total.astype(np.float32)))
    forms: list[Any] = [
        (["a", "b"], "c"),
        {"second": "c", "first": ["a", "b"]},
        lambda columns: (torch.stack([columns["a"], columns["b"]], 1), columns["c"]),
    ]
    for number, form in enumerate(forms):
        chosen = estimator(model=Sum, features=form, label="total", epochs=3)
        state, _ = fit(chosen, [table], tmp_path / str(number))
        assert state["scale"].item() == pytest.approx(3.0, abs=0.01)


def test_a_function_as_features_does_not_find_the_label(tmp_path: Path) -> None:
    chosen = estimator(features=lambda columns: columns["y"])
    with pytest.raises(KeyError, match="y"):
        fit(chosen, [rows(20)], tmp_path)


@pytest.mark.parametrize(
    ("change", "table", "kind", "told"),
    [
        (
            {"optimizer": functools.partial(torch.optim.SGD, lr=1e30)},
            rows(100),
            DataError,
            r"The loss is (inf|nan) in epoch 0 \(from 0\), at step \d, on \d+ rows of worker 0",
        ),
        ({}, rows(0), DataError, r"The table had no rows: nothing was trained"),
        ({}, "y", DataError, r"Column 'y' has 1 NULL in 3 rows, and nothing can be learned"),
        ({}, "b", DataError, r"Column 'b' has 1 NULL in 3 rows.*COALESCE\(b, 0\)"),
        (
            {"loss": lambda outputs, labels: (outputs - labels) ** 2},
            rows(20),
            ConfigError,
            r"loss must return one number.* of shape \(16, 1\)",
        ),
        (
            {"metrics": {"off": lambda outputs, labels: outputs - labels}},
            rows(20),
            ConfigError,
            r"metrics\['off'\] must return one number",
        ),
        ({"model": lambda: 7}, rows(20), ConfigError, r"made a int, and no nn.Module"),
        (
            {"optimizer": lambda parameters: [*parameters]},
            rows(20),
            ConfigError,
            r"optimizer: .* made a list, and no torch.optim.Optimizer",
        ),
        (
            {
                "schedule": torch.optim.lr_scheduler.ReduceLROnPlateau,
                "schedule_every": "step",
            },
            rows(20),
            ConfigError,
            r"schedule_every='step' with ReduceLROnPlateau: .* Give schedule_every='epoch'",
        ),
    ],
)
def test_what_goes_wrong_in_a_worker_is_told_and_nothing_is_saved(
    change: dict[str, Any], table: Any, kind: type[Exception], told: str, tmp_path: Path
) -> None:
    if isinstance(table, str):
        columns = {name: rows(3)[name] for name in "abcy"}
        columns[table] = pa.array([1.0, None, 2.0])
        table = pa.table(columns)
    with pytest.raises(kind, match=told):
        fit(estimator(**change), [table], tmp_path)
    assert not (tmp_path / "model.pt").exists()


def test_a_loss_that_is_lost_on_one_worker_is_the_cause_that_is_told(tmp_path: Path) -> None:
    bad = rows(50)
    bad = bad.set_column(3, "y", pa.array([1.0] * 40 + [np.inf] * 10))
    with pytest.raises(UserCodeError, match=r"The loss is inf in epoch 0 .* of worker 1"):
        fit(estimator(), [rows(50), bad], tmp_path)
    assert not (tmp_path / "model.pt").exists()


def own_function(ctx: Any) -> None:
    """Trains pass by pass, and looks at its held-out rows behind each."""
    torch.manual_seed(ctx.rank)
    model = Line()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ctx.data_parallel(model, optimizer)
    for batches in ctx.passes(BATCH):
        for batch in batches:
            x = torch.stack([batch[name] for name in "abc"], 1)
            optimizer.zero_grad()
            loss: Any = nn.functional.mse_loss(model(x)[:, 0], batch["y"])
            loss.backward()
            optimizer.step()
        total, count = 0.0, 0
        for batch in ctx.held_out(7):
            x = torch.stack([batch[name] for name in "abc"], 1)
            with torch.no_grad():
                total += ((model(x)[:, 0] - batch["y"]) ** 2).sum().item()
            count += len(batch["y"])
        total, count = ctx.add_up([total, count])
        ctx.report(loss=total / count, rows=count)
    ctx.save(model)


def test_an_own_function_looks_at_held_out_rows_behind_each_pass(tmp_path: Path) -> None:
    table, held_out = rows(100), rows(30, seed=6)
    parts = [marked(table, held_out[:4]), marked(table[:0], held_out[4:])]
    settings = TorchSettings(epochs=3, output_dir=tmp_path, has_held_out=True, device="cpu")
    result = testing.run(
        TorchEntry(own_function, settings),
        pa.concat_tables(parts),
        workers=2,
        split=parts,
        timeout_s=100.0,
    )
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    require_same(state, plain(table, 3), rtol=1e-9, atol=1e-12)
    for report in result.reports:
        assert report["loss"] == pytest.approx(mean_square(state, held_out), rel=1e-9)
        assert report["rows"] == 30
    assert result.rows_in == (104, 26)
