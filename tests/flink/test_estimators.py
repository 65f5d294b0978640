"""Estimators train on tables in Flink jobs, and what they have fitted scores others."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from pyflink.table import DataTypes, StreamTableEnvironment, Table
from torch import nn

from headrace.errors import ConfigError, PlanError
from headrace.pytorch import EarlyStopping, FittedTorchModel, TorchEstimator, train
from headrace.tensorflow import FittedKerasModel, KerasEstimator

from .conftest import MakeEnvironment
from .test_predict import written
from .training_jobs import add_numbers, read_rows

cloudpickle.register_pickle_by_value(sys.modules[__name__])

ROWS = 1003
BATCH = 64
TRUTH = ([3.0, -2.0], 0.5)
Y = {"y": DataTypes.FLOAT()}


class Line(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out


def columns_of(ids: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and labels of these rows: exact in 32 bits, as the SQL below computes them."""
    n = np.asarray(ids)
    x = np.stack([n % 7 / 8, n % 11 / 16], axis=1)
    y = x @ np.array(TRUTH[0]) + TRUTH[1]
    return torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)


def problem(
    t_env: StreamTableEnvironment, where: str = "TRUE", source: str = "numbers"
) -> Table:
    """Rows of `source` with features a, b and the label late; the learner must find TRUTH."""
    return t_env.sql_query(
        "SELECT id, 'row' AS name, a, b, 3 * a - 2 * b + 0.5e0 AS late FROM (SELECT id, "
        "CAST(MOD(id, 7) AS DOUBLE) / 8 AS a, CAST(MOD(id, 11) AS DOUBLE) / 16 AS b "
        f"FROM {source}) WHERE {where}"
    )


def sgd(rate: float = 0.1) -> Any:
    return functools.partial(torch.optim.SGD, lr=rate, momentum=0.5)


def estimator(**changes: Any) -> TorchEstimator:
    chosen: dict[str, Any] = {
        "model": Line,
        "loss": nn.MSELoss(),
        "optimizer": sgd(),
        "features": ["a", "b"],
        "label": "late",
        "outputs": Y,
        "batch_rows": BATCH,
        "epochs": 3,
    }
    return TorchEstimator(**{**chosen, **changes})


def plain(ids: list[int], epochs: int) -> tuple[nn.Module, list[float]]:
    """The same loop in torch alone; the model, and the mean loss of each epoch."""
    torch.manual_seed(0)
    model = Line()
    optimizer = sgd()(model.parameters())
    losses = []
    for _ in range(epochs):
        total = 0.0
        for start in range(0, len(ids), BATCH):
            x, y = columns_of(ids[start : start + BATCH])
            optimizer.zero_grad()
            loss: Any = nn.functional.mse_loss(model(x)[:, 0], y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        losses.append(total / len(ids))
    return model, losses


def test_one_worker_trains_bit_for_bit_as_a_plain_loop_and_held_out_rows_do_not_matter(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(1)
    add_numbers(t_env, ROWS)
    table, held_out = problem(t_env, "MOD(id, 5) <> 0"), problem(t_env, "MOD(id, 5) = 0")
    mae = nn.functional.l1_loss
    fitted = estimator(metrics={"mae": mae}).fit(table, held_out, show_progress=False)
    ids = [n for n in range(ROWS) if n % 5]
    model, losses = plain(ids, 3)
    found = fitted.module().state_dict()
    assert {name: value.tolist() for name, value in found.items()} == {
        name: value.tolist() for name, value in model.state_dict().items()
    }
    assert fitted.history["loss"] == pytest.approx(losses, rel=1e-6)
    x, y = columns_of([n for n in range(ROWS) if n % 5 == 0])
    with torch.no_grad():
        errors = model(x)[:, 0] - y
    assert fitted.history["val_loss"][-1] == pytest.approx((errors**2).mean().item(), rel=1e-5)
    assert fitted.history["val_mae"][-1] == pytest.approx(errors.abs().mean().item(), rel=1e-5)
    assert list(fitted.history["rows"]) == [len(ids)] * 3
    assert list(fitted.history["val_rows"]) == [ROWS - len(ids)] * 3
    assert list(fitted.history["learning_rate"]) == [0.1] * 3
    assert fitted.history.best_epoch is None

    scored = fitted.transform(problem(t_env, "id < 500"), keep=["id"])
    rows = written(t_env, scored, "id BIGINT, y FLOAT", tmp_path / "out")
    with torch.no_grad():
        direct = model(columns_of(range(500))[0])[:, 0].tolist()
    assert [row["id"] for row in rows] == list(range(500))
    assert [row["y"] for row in rows] == pytest.approx(direct, rel=1e-5)


class OfArray(Line):
    """The same line, with what else a module may do when it is called."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.float())


def test_two_workers_find_the_truth_stop_early_and_the_job_has_other_sinks(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(2)
    add_numbers(t_env, ROWS)
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE copy (id BIGINT) WITH ('connector'='filesystem', "
        f"'path'='{(tmp_path / 'copy').as_uri()}', 'format'='json')"
    )
    features = "ARRAY[a, b] AS x"
    table = t_env.sql_query(f"SELECT {features}, late FROM {problem(t_env, 'MOD(id, 5) <> 0')}")
    held_out = t_env.sql_query(
        f"SELECT name, late, {features} FROM {problem(t_env, 'MOD(id, 5) = 0')}"
    )
    chosen = estimator(
        features="x",
        epochs=60,
        workers=2,
        batch_rows=32,
        early_stopping=EarlyStopping(patience=2, min_delta=1e-4),
        optimizer=sgd(0.4),
    ).set_params(model=OfArray)
    plan = chosen.plan_fit(table, held_out, model_dir=tmp_path / "model", name="both")
    statements = t_env.create_statement_set()
    statements.add_insert_sql("INSERT INTO copy SELECT id FROM numbers")
    chosen.set_params(outputs={"changed": DataTypes.DOUBLE()}, model=None)  # too late
    job = plan.submit(statements)
    job.handle.wait(timeout_s=100, show_progress=False)
    loaded = FittedTorchModel.load(tmp_path / "model")  # whoever waits has written nothing
    assert loaded.estimator.epochs == 60
    fitted = job.wait(timeout_s=100, show_progress=False)
    assert dict(loaded.history) == dict(fitted.history)

    history = fitted.history
    assert history.best_epoch is not None
    assert history.epochs == history.best_epoch + 3 < 60
    held = [n for n in range(ROWS) if n % 5 == 0]
    assert list(history["rows"]) == [ROWS - len(held)] * history.epochs
    assert list(history["val_rows"]) == [len(held)] * history.epochs
    state = fitted.module().state_dict()
    found = [*state["layer.weight"][0].tolist(), *state["layer.bias"].tolist()]
    assert found == pytest.approx([*TRUTH[0], TRUTH[1]], abs=0.1)
    x, y = columns_of(held)
    with torch.no_grad():
        loss = nn.functional.mse_loss(fitted.module()(x)[:, 0], y).item()
    assert history["val_loss"][history.best_epoch] == pytest.approx(loss, rel=1e-3, abs=1e-6)
    nodes = job.handle.status().nodes
    assert sum(node.rows_in for node in nodes.values()) == ROWS
    assert sorted(row["id"] for row in read_rows(tmp_path / "copy")) == list(range(ROWS))

    some = t_env.sql_query(f"SELECT id, ARRAY[a, b] AS x FROM {problem(t_env, 'id < 300')}")
    rows = written(
        t_env, fitted.transform(some, keep=["id"]), "id BIGINT, y FLOAT", tmp_path / "y"
    )
    scores = {row["id"]: row["y"] for row in rows}
    with torch.no_grad():
        direct = fitted.module()(columns_of(range(300))[0])[:, 0].tolist()
    assert [scores[n] for n in range(300)] == pytest.approx(direct, rel=1e-5)


def test_what_is_saved_is_read_in_another_process_and_saving_trains_nothing(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(1)
    add_numbers(t_env, ROWS)
    chosen = estimator(epochs=1)
    chosen.save(tmp_path / "plan")
    assert [path.name for path in (tmp_path / "plan").iterdir()] == ["estimator.pkl"]
    with pytest.raises(ConfigError, match=r"nothing was trained there. Load it with Torch"):
        FittedTorchModel.load(tmp_path / "plan")
    fitted = TorchEstimator.load(tmp_path / "plan").fit(problem(t_env), show_progress=False)
    fitted.save(tmp_path / "model")
    fitted.save(tmp_path / "model")  # again, and over itself
    FittedTorchModel.load(tmp_path / "model").save(tmp_path / "model")
    with pytest.raises(ConfigError, match=r"is of a TorchEstimator, not of a KerasEstimator"):
        KerasEstimator.load(tmp_path / "model")
    program = (
        "import sys, torch\n"
        "from headrace.pytorch import FittedTorchModel\n"
        "fitted = FittedTorchModel.load(sys.argv[1])\n"
        "assert fitted.estimator.get_params()['batch_rows'] == 64\n"
        "score = fitted.module()(torch.tensor([[0.25, 0.5]])).item()\n"
        "print(score, fitted.history['loss'][0])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "model")],
        capture_output=True,
        text=True,
        check=True,
    )
    with torch.no_grad():
        here = fitted.module()(torch.tensor([[0.25, 0.5]])).item()
    told = [float(each) for each in done.stdout.split()]
    assert told == [here, fitted.history["loss"][0]]


def test_what_cannot_be_trained_is_told_before_a_job_is_submitted(
    t_env: StreamTableEnvironment,
) -> None:
    add_numbers(t_env, 10)
    table = problem(t_env)
    stopping, lock = EarlyStopping(), threading.Lock()
    locked = {"locked": lambda outputs, labels: lock}
    other = t_env.sql_query("SELECT id AS a, 0.5e0 AS b, 1.0e0 AS late FROM numbers")
    lacking = t_env.sql_query("SELECT 0.5e0 AS a, 1.0e0 AS late FROM numbers")
    t_env.execute_sql(
        "CREATE TEMPORARY TABLE endless (a DOUBLE, b DOUBLE, late DOUBLE) "
        "WITH ('connector'='datagen')"
    )
    endless = t_env.from_path("endless")
    cases: list[tuple[TorchEstimator, tuple[Any, ...], type[Exception], str]] = [
        (estimator(features=["a", "c"]), (table,), PlanError, r"features: there is no column"),
        (estimator(features=["a", "name"]), (table,), PlanError, r"column 'name' is CHAR"),
        (estimator(label="when"), (table,), PlanError, r"label: there is no column 'when'"),
        (estimator(label="name"), (table,), PlanError, r"label: column 'name' is CHAR, which"),
        (estimator(early_stopping=stopping), (table,), PlanError, r"give fit\(table, valid"),
        (estimator(), (table, lacking), PlanError, r"held-out rows has no column b; it has"),
        (estimator(), (table, other), PlanError, r"'a' is DOUBLE .* and BIGINT in those that"),
        (estimator(epochs=1), (endless,), PlanError, r"source of table is unbounded, so the"),
        (estimator(), (endless,), PlanError, r"source of table is unbounded, so the training"),
        (estimator(), (table, endless), PlanError, r"source of validation is unbounded, so"),
        (estimator(metrics=locked), (table,), ConfigError, r"metrics=.* cannot be saved"),
        (estimator(), ([1],), PlanError, r"table is a list, and must be a Table"),
        (estimator(), (table, 7), PlanError, r"is a int, and must be a Table"),
    ]
    for chosen, given, kind, told in cases:
        with pytest.raises(kind, match=told):
            chosen.plan_fit(*given)
    with pytest.raises(PlanError, match=r"epochs=3 needs an input that ends, but a so"):
        train(endless, print, epochs=3)
    fitted = estimator(epochs=1).fit(table, show_progress=False)  # nothing of it has stayed
    assert list(fitted.history["rows"]) == [10.0]


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_trains_on_two_workers_and_scores_as_the_model_does(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    def build() -> Any:
        import keras

        return keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])

    t_env = make_t_env(2)
    add_numbers(t_env, ROWS)
    chosen = KerasEstimator(
        build,
        "mse",
        "adam",
        features=["a", "b"],
        label="late",
        metrics=["mae"],
        outputs=Y,
        batch_rows=16,
        epochs=80,
        workers=2,
        schedule=slowing,
        early_stopping=EarlyStopping(patience=3, min_delta=1e-4),
    )
    table, held_out = problem(t_env, "MOD(id, 5) <> 0"), problem(t_env, "MOD(id, 5) = 0")
    fitted = chosen.fit(table, held_out, show_progress=False, timeout_s=200)
    fitted.save(tmp_path / "model")
    fitted = FittedKerasModel.load(tmp_path / "model")
    history, model = fitted.history, fitted.keras_model()
    assert history.best_epoch is not None
    held = [n for n in range(ROWS) if n % 5 == 0]
    assert list(history["rows"]) == [ROWS - len(held)] * history.epochs
    assert list(history["val_rows"]) == [len(held)] * history.epochs
    weights, bias = model.get_weights()
    found = [*weights[:, 0].tolist(), *bias.tolist()]
    assert found == pytest.approx([*TRUTH[0], TRUTH[1]], abs=0.2)
    x, y = columns_of(held)
    off = model.predict(x.numpy(), verbose=0)[:, 0] - y.numpy()
    best = history.best_epoch
    assert history["val_loss"][best] == pytest.approx(float((off**2).mean()), rel=1e-3)
    rows = written(
        t_env,
        fitted.transform(problem(t_env, "id < 300"), keep=["id"]),
        "id BIGINT, y FLOAT",
        tmp_path / "y",
    )
    scores = {row["id"]: row["y"] for row in rows}
    direct = model.predict(columns_of(range(300))[0].numpy(), verbose=0)[:, 0].tolist()
    assert [scores[n] for n in range(300)] == pytest.approx(direct, rel=1e-4)


def slowing(epoch: int, rate: float) -> float:
    return 0.1 if epoch < 10 else rate * 0.9
