"""`ML_PREDICT` with models of Headrace, in table programs."""

from __future__ import annotations

import itertools
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from pyflink.java_gateway import get_gateway
from pyflink.table import StreamTableEnvironment

from tests.waiting import until

from .conftest import MakeEnvironment
from .sql_models import create_model, in_flight, python_model, write_module
from .system import Process, descendants
from .tables import failure_of, rows_of, values
from .test_operator_ends import RETRIES
from .test_operator_rows import CHECKPOINTS, numbers
from .test_predict import Net, written
from .test_reload import in_ms

ROWS = 20_000
SCORED = "SELECT * FROM ML_PREDICT(TABLE {table}, MODEL m, DESCRIPTOR({columns}))"

SAVED_MODEL = """
import sys
import tensorflow as tf

module = tf.Module()
module.sums = tf.function(lambda a, b: {"total": a + b, "gap": a - b})
specs = [tf.TensorSpec([None], tf.float32, name) for name in ("a", "b")]
signatures = {"sums": module.sums.get_concrete_function(*specs)}
tf.saved_model.save(module, sys.argv[1], signatures)
"""


def scored(t_env: StreamTableEnvironment, table: str = "numbers", columns: str = "id") -> Any:
    return t_env.sql_query(SCORED.format(table=table, columns=columns))


def features(t_env: StreamTableEnvironment, rows: int) -> None:
    numbers(t_env, rows)
    t_env.create_temporary_view(
        "features",
        t_env.sql_query(
            "SELECT id, CAST(id AS FLOAT) AS a, id * 0.5e0 AS b, "
            "'n' || CAST(id AS STRING) AS name FROM numbers"
        ),
    )


def children() -> list[Process]:
    family = descendants(os.getpid())
    return [each for each in family if "headrace.framework" in each.command]


def expected(net: Any, ids: range, batch_rows: int) -> list[float]:
    x = torch.tensor([[n, n * 0.5] for n in ids])
    with torch.inference_mode():
        values: list[float] = torch.cat([net(rows) for rows in x.split(batch_rows)]).tolist()
    return values


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("kind", ["script", "state"])
def test_the_scores_are_those_of_the_model_and_rows_keep_their_order(
    make_t_env: MakeEnvironment, tmp_path: Path, kind: str
) -> None:
    torch.manual_seed(4)
    net, path, module = Net(), tmp_path / "net.pt", {}
    if kind == "script":
        torch.jit.save(torch.jit.trace(net, torch.zeros(2, 2)), str(path))
        net = torch.jit.load(str(path))
    else:
        torch.save(net.state_dict(), path)
        module = {"module": "user_nets:Net", **write_module(tmp_path)}
    t_env = make_t_env(**in_flight(2000))
    features(t_env, ROWS)
    batches = {"batch-rows": 1000, "linger": "10 s", "threads": torch.get_num_threads()}
    options = {"framework": "pytorch", "path": path, **batches, **module}
    create_model(t_env, "m", "a FLOAT, b DOUBLE", "y FLOAT", options)
    query = scored(t_env, "features", "a, b")
    columns = "id BIGINT, a FLOAT, b DOUBLE, name STRING, y FLOAT"
    found = written(t_env, query, columns, tmp_path / "out")
    ids = range(1, ROWS + 1)
    assert [(row["id"], row["name"]) for row in found] == [(n, f"n{n}") for n in ids]
    scores = torch.tensor([row["y"] for row in found])[:, None]
    assert scores.tolist() == expected(net, ids, 1000)


def test_rows_that_come_one_by_one_are_scored_in_whole_batches(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**in_flight(2000))
    numbers(t_env, ROWS)
    outputs = "half DOUBLE, batch BIGINT"
    python_model(t_env, tmp_path, "halves", outputs, batch_rows=1000, linger="10 s")
    columns = "id BIGINT, half DOUBLE, batch BIGINT"
    found = written(t_env, scored(t_env), columns, tmp_path / "out")
    assert [(row["id"], row["half"]) for row in found] == [
        (n, n * 0.5) for n in range(1, ROWS + 1)
    ]
    assert {row["batch"] for row in found} == {1000}


def test_without_linger_batches_grow_with_the_load_up_to_what_flink_hands_over(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    numbers(t_env, 2000)
    python_model(t_env, tmp_path, "halves", "half DOUBLE, batch BIGINT")
    columns = "id BIGINT, half DOUBLE, batch BIGINT"
    found = written(t_env, scored(t_env), columns, tmp_path / "out")
    assert [row["id"] for row in found] == [*range(1, 2001)]
    assert max(row["batch"] for row in found) in range(2, 11), "10 rows are in flight"


def test_a_setting_with_which_batches_stay_small_is_a_warning_unless_the_query_has_its_own(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    numbers(t_env, 10)
    python_model(t_env, tmp_path, "halves", "half DOUBLE, batch BIGINT")
    log = Path(get_gateway().jvm.java.lang.System.getProperty("log.file"))
    before = len(log.read_text())
    own = "MAP['max-concurrent-operations', '2048']"
    t_env.sql_query(
        f"SELECT * FROM ML_PREDICT(TABLE numbers, MODEL m, DESCRIPTOR(id), {own})"
    ).explain()
    scored(t_env).explain()
    pattern = re.compile(r"Model m scores .* For 'batch-rows' = '1024' set .*")
    (told,) = until(lambda: pattern.findall(log.read_text()[before:]), "warning", 5)
    assert told.startswith(
        "Model m scores 10 rows in a batch at most, because Flink hands it 10"
    )
    assert "'table.exec.async-ml-predict.max-concurrent-operations' = '2048'" in told


def test_text_and_arrays_go_in_and_out_also_where_flink_reuses_objects(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(pipeline_object__reuse="true", **in_flight(256))
    numbers(t_env, 2000)
    t_env.create_temporary_view(
        "texts",
        t_env.sql_query(
            "SELECT 'n' || CAST(id AS STRING) AS t, ARRAY[id, 2 * id] AS n FROM numbers"
        ),
    )
    options = {"framework": "python", "factory": "user_models:echoes", **write_module(tmp_path)}
    columns = "t STRING, n ARRAY<BIGINT>"
    create_model(t_env, "m", columns, "t2 STRING, n2 ARRAY<BIGINT>", options)
    query = scored(t_env, "texts", "t, n")
    found = written(t_env, query, f"{columns}, t2 STRING, n2 ARRAY<BIGINT>", tmp_path / "out")
    assert [(row["t"], row["n"]) for row in found] == [
        (f"n{n}", [n, 2 * n]) for n in range(1, 2001)
    ]
    assert [(row["t2"], row["n2"]) for row in found] == [
        (f"n{n}!", [n, 2 * n]) for n in range(1, 2001)
    ]


def test_parallel_subtasks_have_a_process_each(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(2, **in_flight(512))
    numbers(t_env, ROWS)
    python_model(t_env, tmp_path, "dies_once")
    found = written(t_env, scored(t_env), "id BIGINT, half DOUBLE", tmp_path / "out")
    assert sorted((row["id"], row["half"]) for row in found) == [
        (n, n * 0.5) for n in range(1, ROWS + 1)
    ]
    assert len(list(tmp_path.glob("first-*"))) == 2
    assert not children()


def test_a_killed_process_comes_back_and_every_row_is_in_the_output_once(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    at = {"execution_checkpointing_dir": (tmp_path / "cp").as_uri()}
    t_env = make_t_env(**CHECKPOINTS, **RETRIES, **at, **in_flight(256))
    numbers(t_env, ROWS, per_second=5_000)
    python_model(t_env, tmp_path, "dies_once", batch_rows=64)
    found = written(t_env, scored(t_env), "id BIGINT, half DOUBLE", tmp_path / "out")
    assert (tmp_path / "died").exists()
    began = sorted(int(path.read_text()) for path in tmp_path.glob("first-*"))
    assert len(began) == 2
    assert began[0] == 1
    assert began[1] > 1, "it did not go on from a checkpoint"
    assert sorted((row["id"], row["half"]) for row in found) == [
        (n, n * 0.5) for n in range(1, ROWS + 1)
    ]


@pytest.mark.parametrize(
    ("factory", "text"),
    [
        ("kills_itself", "The process was ended by SIGKILL"),
        ("kills_its_node", "The node process of m-0"),
    ],
)
def test_a_killed_process_fails_a_job_without_restarts_at_once(
    t_env: StreamTableEnvironment, tmp_path: Path, factory: str, text: str
) -> None:
    numbers(t_env, 100)
    python_model(t_env, tmp_path, factory)
    told = failure_of(scored(t_env))
    assert text in told, told
    until(lambda: not children(), "the end of every process", 10)


def test_a_row_that_cannot_be_scored_fails_the_job_or_is_null_with_its_reason(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    t_env = make_t_env(**in_flight(64))
    numbers(t_env, 20)
    python_model(t_env, tmp_path, "refuses")
    assert "ValueError: seven is no number of ours" in failure_of(scored(t_env))
    t_env.execute_sql("DROP MODEL m")
    outputs = "why STRING, half DOUBLE"
    told = {"on_error": "null", "error_column": "why"}
    python_model(t_env, tmp_path, "refuses", outputs, **told)
    assert rows_of(scored(t_env)) == [
        (n, "ValueError: seven is no number of ours", None) if n == 7 else (n, None, n * 0.5)
        for n in range(1, 21)
    ]


def test_a_cancelled_job_leaves_no_process(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    numbers(t_env, 100)
    python_model(t_env, tmp_path, "sleeps")
    t_env.execute_sql("CREATE TEMPORARY TABLE gone (id BIGINT, half DOUBLE) WITH "
                      "('connector' = 'blackhole')")  # fmt: skip
    client = scored(t_env).execute_insert("gone").get_job_client()
    until((tmp_path / "scoring").exists, "a call of the model", 60)
    client.cancel().result()
    until(lambda: not children(), "the end of every process", 10)


def test_a_model_scores_in_batch_mode(make_t_env: MakeEnvironment, tmp_path: Path) -> None:
    t_env = make_t_env(execution_runtime__mode="BATCH", **in_flight(64))
    t_env.create_temporary_view("numbers", values(t_env, {"id": "BIGINT"}, "1", "2", "3"))
    python_model(t_env, tmp_path, "halves", "half DOUBLE, batch BIGINT")
    t_env.create_temporary_view("scored", scored(t_env))
    assert rows_of(t_env.sql_query("SELECT SUM(half), COUNT(*) FROM scored")) == [(3.0, 3)]


def test_a_model_on_a_file_system_of_flink_is_read_again_where_it_changes(
    make_t_env: MakeEnvironment, tmp_path: Path, shelf: str
) -> None:
    path, stamps = tmp_path / "factor", []

    def put(factor: int) -> None:
        beside = path.with_suffix(".new")
        beside.write_text(str(factor))
        beside.replace(path)
        stamps.append(path.stat().st_mtime_ns // 1_000_000)

    def replace_once_read() -> None:
        until((tmp_path / "read-1").exists, "the load of the first version", 60)
        put(2)

    put(1)
    t_env = make_t_env(**in_flight(256))
    numbers(t_env, 8_000, per_second=2_000)
    outputs = "n BIGINT, version TIMESTAMP_LTZ(3)"
    watch = {"path": f"{shelf}{path}", "reload_every": "100 ms", "version_column": "version"}
    python_model(t_env, tmp_path, "times", outputs, batch_rows=64, **watch)
    replacer = threading.Thread(target=replace_once_read)
    replacer.start()
    found = written(t_env, scored(t_env), f"id BIGINT, {outputs}", tmp_path / "out")
    replacer.join()
    assert [row["id"] for row in found] == list(range(1, 8_001))
    seen = [(row["n"] // row["id"], in_ms(row["version"])) for row in found]
    assert [run for run, _ in itertools.groupby(seen)] == [(1, stamps[0]), (2, stamps[1])]


# Keras 3.15 copies variables in a way that NumPy 2 deprecates.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_file_with_several_inputs_and_outputs_takes_them_by_name(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    import keras

    a, b = keras.Input((1,), name="a"), keras.Input((1,), name="b")
    model = keras.Model({"a": a, "b": b}, {"total": a + b, "gap": a - b})
    model.save(tmp_path / "two.keras")
    assert_sums_by_name(make_t_env, {"path": tmp_path / "two.keras"})


def test_a_saved_model_with_several_inputs_and_outputs_takes_them_by_name(
    make_t_env: MakeEnvironment, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", SAVED_MODEL, str(tmp_path / "two")]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert_sums_by_name(make_t_env, {"path": tmp_path / "two", "signature": "sums"})


def assert_sums_by_name(make_t_env: MakeEnvironment, named: dict[str, Any]) -> None:
    t_env = make_t_env(**in_flight(64))
    features(t_env, 30)
    options = {"framework": "tensorflow", "on-error": "null", "error-column": "why", **named}
    outputs = "gap FLOAT, total FLOAT, why STRING"
    create_model(t_env, "m", "b DOUBLE, a FLOAT", outputs, options)
    t_env.create_temporary_view(
        "holes", t_env.sql_query("SELECT id, a, NULLIF(b, 3.5e0) AS b FROM features")
    )
    t_env.create_temporary_view("scored", scored(t_env, "holes", "b, a"))
    found = rows_of(t_env.sql_query("SELECT id, gap, total, why FROM scored"))
    assert found == [
        (n, None, None, "b is NULL") if n == 7 else (n, n * 0.5, n * 1.5, None)
        for n in range(1, 31)
    ]


def test_a_missing_file_fails_the_job_and_names_it(
    t_env: StreamTableEnvironment, tmp_path: Path
) -> None:
    numbers(t_env, 10)
    options = {"framework": "pytorch", "path": tmp_path / "missing.pt"}
    create_model(t_env, "m", "id BIGINT", "y FLOAT", options)
    assert f"There is no model at {tmp_path / 'missing.pt'}" in failure_of(scored(t_env))
    until(lambda: not children(), "the end of every process", 10)
