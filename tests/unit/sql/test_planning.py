"""What Python answers the planner of a table program."""

from __future__ import annotations

import base64
import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

import headrace.pytorch
import headrace.tensorflow
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


def ask_model(options: dict[str, Any]) -> dict[str, Any]:
    columns = [{"name": "half", "type": "DOUBLE"}]
    columns += [{"name": "why", "type": "STRING"}] if "error-column" in options else []
    inputs = [{"name": name, "type": "BIGINT"} for name in ("id", "n")]
    named = {"type": "model", "name": "m", "options": options}
    return ask({**named, "inputs": inputs, "outputs": columns})


def ask_with_column(options: dict[str, Any], name: str, kind: str) -> dict[str, Any]:
    outputs = [{"name": "half", "type": "DOUBLE"}, {"name": name, "type": kind}]
    inputs = [{"name": "id", "type": "BIGINT"}]
    named = {"type": "model", "name": "m", "options": options}
    return ask({**named, "inputs": inputs, "outputs": outputs})


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
    moment = {"name": "at", "type": "TIMESTAMP_LTZ(3)"}
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
        ({**PYTHON, "reload-every-ms": 0}, "'reload-every' is 0 ms and must be at least 1 ms"),
    ],
)
def test_options_of_a_model_that_cannot_work(options: dict[str, Any], text: str) -> None:
    assert text in ask_model(options)["error"]


@pytest.mark.parametrize("kind", ["DOUBLE", "STRING NOT NULL", "CHAR(5)", "VARCHAR(20)"])
def test_an_error_column_that_cannot_hold_every_text_is_refused(kind: str) -> None:
    options = {**PYTHON, "on-error": "null", "error-column": "why"}
    told = ask_with_column(options, "why", kind)["error"]
    assert f"must be a STRING column of the OUTPUT, which has half DOUBLE, why {kind}" in told


@pytest.mark.parametrize("kind", ["TIMESTAMP_LTZ(0)", "TIMESTAMP_LTZ(6)", "TIMESTAMP(3)"])
def test_a_version_column_that_does_not_hold_milliseconds_is_refused(kind: str) -> None:
    options = {**PYTHON, "path": "/m", "version-column": "at"}
    told = ask_with_column(options, "at", kind)["error"]
    assert (
        f"must be a TIMESTAMP_LTZ(3) column of the OUTPUT, which has half DOUBLE, at {kind}"
        in (told)
    )


@pytest.mark.parametrize(
    ("framework", "package"), [("pytorch", "torch"), ("tensorflow", "tensorflow")]
)
def test_a_framework_that_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, framework: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    told = ask_model({"framework": framework, "path": "/m"})["error"]
    assert (
        f"'framework' = '{framework}' needs the package {package}, which {sys.executable}"
        in (told)
    )


@pytest.mark.parametrize(
    ("device", "gpu"), [("auto", "auto"), ("cpu", "none"), ("cuda", "required")]
)
def test_the_device_is_that_of_the_role(device: str, gpu: str) -> None:
    spec = ask_model({**PYTHON, "device": device})["role"]["document"]["spec"]
    assert spec["gpu"] == gpu


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


@pytest.mark.parametrize(
    ("framework", "train_of_it"),
    [("pytorch", headrace.pytorch.train), ("tensorflow", headrace.tensorflow.train)],
)
def test_the_config_takes_what_train_takes_and_nothing_internal(
    framework: str, train_of_it: Callable[..., object]
) -> None:
    told = ask_training(framework=framework, config='{"no_such": 1}')["error"]
    _, _, offered = told.partition("it takes ")
    of_table = {"name", "workers", "epochs", "output_dir"}
    with_rows = {"rows", "entry", "held_out", "output"}
    of_train = {*inspect.signature(train_of_it).parameters}
    assert {*offered.split(", ")} == (of_train - of_table - with_rows) | {"options"}


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


def test_the_planner_hears_whether_a_training_needs_checkpoints() -> None:
    chosen = {"framework": "pytorch", "entry": TRAIN}
    planned = ask_training(**chosen, config='{"export_to": "/served"}')
    assert planned["has_exports"]
    assert not ask_training(**chosen)["has_exports"]
