"""What Python answers the planner of a table program."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from headrace.inference import PythonModel
from headrace.sql.planning import answer
from headrace.tensorflow import KerasModel, SavedModel

HALVES = f"{__name__}:halves"
TRAIN = f"{__name__}:train"
PYTHON = {"framework": "python", "factory": HALVES}


def halves() -> Any:
    return lambda columns: columns["id"] * 0.5


def train(ctx: Any) -> None:
    """Stands for a training function."""


def ask(question: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer(json.dumps(question).encode()))
    return found


def ask_model(options: dict[str, Any], outputs: tuple[str, ...] = ("half",)) -> dict[str, Any]:
    columns = [{"name": name, "type": "DOUBLE"} for name in outputs]
    columns += [{"name": "why", "type": "VARCHAR"}] if "error-column" in options else []
    inputs = [{"name": name, "type": "BIGINT"} for name in ("id", "n")]
    named = {"type": "model", "name": "m", "options": options}
    return ask({**named, "inputs": inputs, "outputs": columns})


def entry_of(role: dict[str, Any]) -> Any:
    parts = pickle.loads(base64.b64decode(role["payload"]))
    return cloudpickle.loads(parts["entry"])


def ask_training(**options: Any) -> dict[str, Any]:
    chosen = {"framework": "none", "entry": TRAIN, **options}
    return ask({"type": "training", "name": "trainer", "options": chosen})


def test_a_model_becomes_the_documents_of_a_role() -> None:
    planned = ask_model(
        {**PYTHON, "batch-rows": 7, "linger-ms": 20, "threads": 2, "python.files": ["/lib"]}
    )
    assert planned["cluster"]["python_path"] == ["/lib"]
    exchange = planned["role"]["document"]["exchange"]
    assert (exchange["batch_rows"], exchange["linger_ms"]) == (7, 20)
    entry = entry_of(planned["role"])
    assert entry.model == PythonModel(halves)
    assert entry.settings.outputs == ("half",)
    assert (entry.settings.batch_rows, entry.settings.threads) == (7, 2)


def test_a_model_that_flink_copies_and_looks_after_is_planned_with_a_mirror() -> None:
    options = {"path": "s3://b/m.keras", "reload-every-ms": 2500, "version-column": "at"}
    moment = {"name": "at", "type": "TIMESTAMP_WITH_LOCAL_TIME_ZONE"}
    planned = ask(
        {
            "type": "model",
            "name": "m",
            "options": {"framework": "tensorflow", **options},
            "inputs": [{"name": "a", "type": "FLOAT"}],
            "outputs": [{"name": "y", "type": "FLOAT"}, moment],
        }
    )
    mirror = {"uri": "s3://b/m.keras", "every_ms": 2500}
    assert planned["role"]["document"]["mirror"] == mirror
    settings = entry_of(planned["role"]).settings
    assert (settings.outputs, settings.version_column) == (("y",), "at")
    assert (settings.reload, settings.reload_every_s) == ("path changes", 2.5)


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({"path": "/m"}, SavedModel("/m")),
        ({"path": "/m", "signature": "s"}, SavedModel("/m", "s")),
        ({"path": "/m.keras"}, KerasModel("/m.keras")),
    ],
)
def test_the_path_says_which_model_of_tensorflow_it_is(
    options: dict[str, str], model: object
) -> None:
    planned = ask_model({"framework": "tensorflow", **options})
    assert entry_of(planned["role"]).model == model


@pytest.mark.parametrize(
    ("text", "inputs"),
    [
        ('"id"', "id"),
        ('["id", "n"]', ["id", "n"]),
        ('[["id", "n"], "n"]', (["id", "n"], "n")),
        ('{"x": ["id"], "y": "n"}', {"x": ["id"], "y": "n"}),
    ],
)
def test_inputs_are_json(text: str, inputs: object) -> None:
    entry = entry_of(ask_model({**PYTHON, "inputs": text})["role"])
    assert entry.settings.inputs == inputs


def test_the_error_column_is_one_of_the_output_and_no_score() -> None:
    planned = ask_model({**PYTHON, "on-error": "null", "error-column": "why"})
    settings = entry_of(planned["role"]).settings
    assert (settings.outputs, settings.error_column) == (("half",), "why")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"framework": "pytorch"}, "'framework' = 'pytorch' needs the option 'path'"),
        ({"framework": "python"}, "'framework' = 'python' needs the option 'factory'"),
        (
            {**PYTHON, "module": "m:M"},
            "'module' = 'm:M' has no meaning with 'framework' = 'python'",
        ),
        ({"framework": "pytorch", "path": "m.pt"}, "'path' = 'm.pt' must be absolute"),
        ({**PYTHON, "factory": "halves"}, "'factory' = 'halves' must name a module and what"),
        ({**PYTHON, "factory": "json:no"}, "'factory' = 'json:no': json has no 'no'"),
        ({**PYTHON, "python.files": ["lib"]}, "'python.files' = 'lib' must be absolute"),
        ({**PYTHON, "inputs": "id"}, "'inputs' = 'id' must be JSON"),
        ({**PYTHON, "inputs": '["x"]'}, "'inputs': there is no column x; INPUT has id, n"),
        ({**PYTHON, "error-column": "why"}, "Choose on_error='null'"),
        (
            {"framework": "tensorflow", "path": "/m.keras", "signature": "s"},
            "'signature' = 's' has no meaning for a .keras file",
        ),
    ],
)
def test_options_of_a_model_that_cannot_work(options: dict[str, Any], text: str) -> None:
    assert text in ask_model(options)["error"]


def test_an_error_column_that_is_no_text_is_refused() -> None:
    options = {**PYTHON, "on-error": "null", "error-column": "half"}
    told = ask_model(options)["error"]
    assert "must be a STRING column of the OUTPUT, which has half DOUBLE, why VARCHAR" in told


def test_a_training_becomes_the_documents_of_a_cluster() -> None:
    planned = ask_training(
        workers=3, config='{"options": {"rate": 0.5}, "exchange": {"slots": 4}}'
    )
    (role,) = planned["roles"]
    assert role["is_fed"]
    assert role["document"]["parallelism"] == 3
    assert role["document"]["exchange"]["slots"] == 4
    assert role["document"]["spec"]["options"] == {"rate": 0.5}
    assert planned["cluster"]["uid_prefix"] == "headrace-trainer"
    assert planned["cluster"]["am_spec"]["machine"] == "all_finish"


def test_further_roles_come_from_the_config() -> None:
    config = json.dumps({"ps": 2, "evaluator": TRAIN, "log_dir": "/logs"})
    planned = ask_training(framework="tensorflow", config=config)
    counts = {
        role["document"]["role"]: (role["document"]["parallelism"], role["is_fed"])
        for role in planned["roles"]
    }
    assert counts == {"ps": (2, False), "worker": (1, True), "evaluator": (1, False)}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"entry": "json:no"}, "'entry' = 'json:no': json has no 'no'"),
        ({"config": "[]"}, "must be a JSON object"),
        (
            {"config": '{"rate": 1}'},
            "'config' has rate; it takes environment, exchange, options",
        ),
        ({"config": '{"exchange": {"slots": "x"}}'}, "'config': exchange = {'slots': 'x'}"),
        ({"config": '{"exchange": {"slots": 1}}'}, "exchange.slots=1 must be a whole number"),
        ({"epochs": 2}, "have no meaning with 'framework' = 'none'"),
        ({"output-dir": "out"}, "'output-dir' = 'out' must be absolute"),
    ],
)
def test_options_of_a_training_that_cannot_work(options: dict[str, Any], text: str) -> None:
    assert text in ask_training(**options)["error"]


def test_the_program_answers_on_stdout_whatever_a_module_prints(tmp_path: Path) -> None:
    tmp_path.joinpath("loud.py").write_text("print('hello')\ndef f(): ...\n")
    options = {"framework": "python", "factory": "loud:f"}
    column = {"name": "x", "type": "DOUBLE"}
    question = {"type": "model", "name": "m", "options": options}
    done = subprocess.run(
        [sys.executable, "-m", "headrace.sql.planner"],
        input=json.dumps({**question, "inputs": [column], "outputs": [column]}),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["role"]["document"]["role"] == "m"
    assert "hello" in done.stderr
