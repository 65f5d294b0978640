"""`INSERT INTO` a table of Headrace trains, alone and with other INSERTs of one job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
from py4j.protocol import Py4JJavaError
from pyflink.table import EnvironmentSettings, StreamTableEnvironment, TableEnvironment

import headrace.sql
from headrace.operator.failure import cause_text
from tests.waiting import until

from .conftest import MakeEnvironment
from .exported import ids_in
from .test_kept_state import NARROW, RETRIES, in_dir
from .test_operator_rows import CHECKPOINTS

TEnv = TypeVar("TEnv", bound=TableEnvironment)
ROWS = 4000
MODULE = '''
import json
from pathlib import Path

HERE = Path(__file__).parent


def fit(ctx):
    """Trains y = 3 a - b."""
    import torch

    torch.manual_seed(ctx.index)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=ctx.options["rate"])
    ctx.data_parallel(model, optimizer)
    for batch in ctx.batches(rows=64):
        loss = torch.nn.functional.mse_loss(model(batch["x"]).squeeze(1), batch["y"])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    ctx.save(model)


def count(ctx):
    rows = sum(len(batch["n"]) for batch in ctx.batches(rows=64))
    (HERE / f"{ctx.role}-{ctx.index}.json").write_text(json.dumps(rows))


def count_and_die(ctx):
    """Counts in its state; kills itself once, when there is a checkpoint."""
    import os
    import signal
    import threading

    state, died = ctx.state, HERE / "died"
    state.setdefault("rows", 0)
    for batch in ctx.batches(rows=64):
        state["rows"] += len(batch["n"])
        if not died.exists():
            threading.Event().wait(0.02)
            if list(HERE.glob("cp/*/chk-*/_metadata")):
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
    (HERE / "worker-0.json").write_text(json.dumps([state["rows"], ctx.is_restored]))


def count_in_a_model(ctx):
    """Makes the weight of a model the number of its rows."""
    import torch

    model = torch.nn.Linear(1, 1)
    torch.nn.init.zeros_(model.weight)
    ctx.checkpointed(model=model)
    for batch in ctx.batches(rows=64):
        with torch.no_grad():
            model.weight += len(batch["n"])


def fail(ctx):
    raise RuntimeError("nothing to learn here")


def count_beside_servers(ctx):
    with ctx.parameter_servers():
        pass
    count(ctx)
'''


@pytest.fixture
def rows(make_t_env: MakeEnvironment, tmp_path: Path) -> StreamTableEnvironment:
    return with_rows(make_t_env(2), tmp_path)


def with_rows(t_env: TEnv, folder: Path) -> TEnv:
    """Give a table environment the jars, a bounded table `readings` and an endless one."""
    folder.joinpath("user_training.py").write_text(MODULE)
    headrace.sql.add_jars(t_env)
    t_env.execute_sql(
        "CREATE TABLE readings (n BIGINT) WITH ('connector' = 'datagen', "
        "'fields.n.kind' = 'sequence', 'fields.n.start' = '1', "
        f"'fields.n.end' = '{ROWS}', 'number-of-rows' = '{ROWS}')"
    )
    t_env.execute_sql("CREATE TABLE endless (n BIGINT) WITH ('connector' = 'datagen')")
    return t_env


def create_trainer(
    t_env: TableEnvironment, columns: str, folder: Path, options: dict[str, Any]
) -> None:
    chosen = {"connector": "headrace", "python.files": folder, **options}
    given = ", ".join(f"'{key}' = '{value}'" for key, value in chosen.items())
    t_env.execute_sql(f"CREATE TABLE trainer ({columns}) WITH ({given})")


def counted(folder: Path) -> list[int]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("worker-*.json"))]


def test_an_insert_trains_several_epochs_with_several_workers(
    rows: StreamTableEnvironment, tmp_path: Path
) -> None:
    options = {"framework": "pytorch", "entry": "user_training:fit", "workers": 2, "epochs": 3}
    more = {"output-dir": tmp_path / "trained", "config": '{"options": {"rate": 0.1}}'}
    create_trainer(rows, "x ARRAY<FLOAT>, y FLOAT", tmp_path, {**options, **more})
    rows.execute_sql(
        "INSERT INTO trainer SELECT ARRAY[CAST(SIN(n) AS FLOAT), CAST(COS(n) AS FLOAT)], "
        "CAST(3 * SIN(n) - COS(n) AS FLOAT) FROM readings"
    ).wait()
    found = torch.load(tmp_path / "trained" / "model.pt")["weight"]
    assert torch.allclose(found, torch.tensor([[3.0, -1.0]]), atol=0.05), found


def test_in_a_statement_set_it_is_a_part_of_one_job(
    rows: StreamTableEnvironment, tmp_path: Path
) -> None:
    options = {"framework": "none", "entry": "user_training:count", "workers": 2}
    create_trainer(rows, "n BIGINT", tmp_path, options)
    out = tmp_path / "out"
    rows.execute_sql(
        "CREATE TABLE big (n BIGINT) WITH ('connector' = 'filesystem', "
        f"'path' = '{out.as_uri()}', 'format' = 'json')"
    )
    rows.execute_sql(
        "EXECUTE STATEMENT SET BEGIN INSERT INTO trainer SELECT n FROM readings WHERE n > 9; "
        "INSERT INTO trainer SELECT n FROM readings WHERE n <= 9; "
        "INSERT INTO big SELECT n FROM readings WHERE n > 3990; END"
    ).wait()
    assert len(counted(tmp_path)) == 2
    assert sum(counted(tmp_path)) == ROWS
    lines = [line for path in out.rglob("part-*") for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["n"] for line in lines) == [*range(3991, ROWS + 1)]


def test_a_worker_that_is_killed_goes_on_from_the_checkpoint(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    options = {**CHECKPOINTS, **RETRIES, **NARROW, **in_dir(tmp_path / "cp")}
    t_env = with_rows(make_t_env(**options), tmp_path)
    t_env.execute_sql(
        "CREATE TABLE slow (n BIGINT, padding STRING) WITH ('connector' = 'datagen', "
        "'fields.n.kind' = 'sequence', 'fields.n.start' = '1', 'fields.n.end' = '2000', "
        "'fields.padding.length' = '1000', 'rows-per-second' = '1000', "
        "'number-of-rows' = '2000')"
    )
    trainer = {"framework": "none", "entry": "user_training:count_and_die"}
    config = '{"exchange": {"batch_rows": 16, "slots": 2}}'
    columns = "n BIGINT, padding STRING"
    create_trainer(t_env, columns, tmp_path, {**trainer, "config": config})
    t_env.execute_sql("INSERT INTO trainer SELECT * FROM slow").wait()
    assert (tmp_path / "died").exists()
    assert json.loads((tmp_path / "worker-0.json").read_text()) == [2000, True]


def test_the_config_makes_it_export_models_while_it_trains(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    options = {**CHECKPOINTS, **RETRIES, **in_dir(tmp_path / "cp")}
    t_env = with_rows(make_t_env(**options), tmp_path)
    served = tmp_path / "served"
    trainer = {"framework": "pytorch", "entry": "user_training:count_in_a_model"}
    config = json.dumps({"export_to": str(served), "keep_exports": 2})
    create_trainer(t_env, "n BIGINT", tmp_path, {**trainer, "config": config})
    client = t_env.execute_sql("INSERT INTO trainer SELECT n FROM endless").get_job_client()
    assert client is not None

    def weight() -> float:
        state = torch.load(served / "latest.pt", weights_only=True)
        return float(state["weight"].item())

    def has_two(behind: int) -> bool:
        ids = ids_in(served)
        return len(ids) == 2 and ids[0] > behind

    try:
        until(lambda: has_two(0), "two versions")
        first = weight()
        last = ids_in(served)[-1]
        assert first > 0
        until(lambda: has_two(last) and weight() > first, "two others, of more rows")
    finally:
        client.cancel().result()
        with pytest.raises(Py4JJavaError):  # that is how a cancelled job ends
            client.get_job_execution_result().result()


def test_an_environment_without_a_data_stream_api_trains_too(tmp_path: Path) -> None:
    """As the SQL client's is."""
    t_env = with_rows(
        TableEnvironment.create(EnvironmentSettings.in_streaming_mode()), tmp_path
    )
    options = {"framework": "none", "entry": "user_training:count"}
    create_trainer(t_env, "n BIGINT", tmp_path, options)
    t_env.execute_sql("INSERT INTO trainer SELECT n FROM readings").wait()
    assert sum(counted(tmp_path)) == ROWS


@pytest.mark.timeout(240)
def test_roles_without_rows_run_beside_the_workers(
    rows: StreamTableEnvironment, tmp_path: Path
) -> None:
    options = {"framework": "tensorflow", "entry": "user_training:count_beside_servers"}
    create_trainer(rows, "n BIGINT", tmp_path, {**options, "config": '{"ps": 1}'})
    rows.execute_sql("INSERT INTO trainer SELECT n FROM readings").wait()
    assert counted(tmp_path) == [ROWS]


def refusal(t_env: StreamTableEnvironment, query: str) -> str:
    with pytest.raises(Exception, match=r".") as caught:
        t_env.execute_sql(f"INSERT INTO trainer {query}").wait()
    return cause_text(caught.value)


def test_a_failure_of_the_entry_function_is_that_of_the_job(
    rows: StreamTableEnvironment, tmp_path: Path
) -> None:
    options = {"framework": "none", "entry": "user_training:fail"}
    create_trainer(rows, "n BIGINT", tmp_path, options)
    assert "RuntimeError: nothing to learn here" in refusal(rows, "SELECT n FROM readings")


@pytest.mark.parametrize(
    ("options", "query", "text"),
    [
        ({"workers": 0}, "SELECT n FROM readings", "parallelism=0 must be a whole number"),
        ({"worker": 1}, "SELECT n FROM readings", "Unsupported options"),
        ({"entry": "user_training:no"}, "SELECT n FROM readings", "user_training has no 'no'"),
        (
            {"config": '{"rate": 1}'},
            "SELECT n FROM readings",
            "'config' has rate; it takes env",
        ),
        ({"framework": "pytorch", "epochs": 2}, "SELECT n FROM endless", "an input that ends"),
        ({}, "SELECT COUNT(n) FROM readings GROUP BY n", "update"),
    ],
    ids=["workers", "unknown", "entry", "config", "endless", "updates"],
)
def test_what_cannot_work_is_refused_before_the_job(
    rows: StreamTableEnvironment, tmp_path: Path, options: dict[str, Any], query: str, text: str
) -> None:
    good = {"framework": "none", "entry": "user_training:count"}
    create_trainer(rows, "n BIGINT", tmp_path, {**good, **options})
    told = refusal(rows, query)
    assert text in told, told


@pytest.mark.parametrize(
    ("flink", "more", "text"),
    [
        ({"execution_runtime__mode": "BATCH"}, {}, "'execution.runtime-mode' is BATCH"),
        (CHECKPOINTS, {}, "SET 'restart-strategy.type' = 'none'"),
        (
            {},
            {"framework": "pytorch", "config": '{"export_to": "/served"}'},
            "export_to in 'config' of table trainer writes a model for each checkpoint",
        ),
    ],
    ids=["batch mode", "checkpoints", "no checkpoints"],
)
def test_settings_of_flink_with_which_a_training_would_go_wrong_are_refused(
    make_t_env: MakeEnvironment,
    tmp_path: Path,
    flink: dict[str, str],
    more: dict[str, str],
    text: str,
) -> None:
    t_env = with_rows(make_t_env(**flink), tmp_path)
    options = {"framework": "none", "entry": "user_training:count", **more}
    create_trainer(t_env, "n BIGINT", tmp_path, options)
    told = refusal(t_env, "SELECT * FROM (VALUES (1), (2))")
    assert text in told, told


@pytest.mark.parametrize(
    ("workers", "text"), [(3, "started 2 of the 3 processes of role 'worker'"), (2, None)]
)
def test_the_adaptive_scheduler_runs_no_fewer_workers_than_planned(
    make_t_env: MakeEnvironment, tmp_path: Path, workers: int, text: str | None
) -> None:
    slots = {
        "jobmanager_scheduler": "adaptive",
        "taskmanager_numberOfTaskSlots": "2",
        "jobmanager_adaptive__scheduler_submission_resource__wait__timeout": "1 s",
        "restart__strategy_type": "fixed-delay",
    }
    t_env = with_rows(make_t_env(**slots), tmp_path)
    options = {"framework": "none", "entry": "user_training:count", "workers": workers}
    create_trainer(t_env, "n BIGINT", tmp_path, options)
    if text is None:
        t_env.execute_sql("INSERT INTO trainer SELECT n FROM readings").wait()
        assert sum(counted(tmp_path)) == ROWS
    else:
        told = refusal(t_env, "SELECT n FROM readings")
        assert text in told, told
