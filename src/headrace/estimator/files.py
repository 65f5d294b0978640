"""What is in the directory of an estimator, and of a fitted model.

| file | what |
|---|---|
| estimator.pkl | class name and parameters, by cloudpickle |
| model.pt, model.keras | the trained weights, in the framework's own format |
| history.json | what each epoch brought |
"""

from __future__ import annotations

import atexit
import pickle
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cloudpickle

from headrace.errors import ConfigError
from headrace.estimator.history import History
from headrace.role import replacing

__all__ = [
    "ESTIMATOR_FILE",
    "HISTORY_FILE",
    "copy_file",
    "new_temporary_directory",
    "read_history",
    "read_parameters",
    "write_history",
    "write_parameters",
]

ESTIMATOR_FILE = "estimator.pkl"
HISTORY_FILE = "history.json"


def write_parameters(directory: Path, kind: str, parameters: Mapping[str, Any]) -> None:
    """Write the parameters of an estimator.

    Args:
        directory: Where; made if it is missing.
        kind: Name of its class.
        parameters: By name.

    Raises:
        ConfigError: One of them cannot be pickled; the text has its name.
    """
    for name, value in parameters.items():
        _require_pickles(kind, name, value)
    with replacing(directory / ESTIMATOR_FILE) as file:
        file.write(cloudpickle.dumps({"kind": kind, "parameters": dict(parameters)}))


def read_parameters(directory: Path, kind: str, known: Sequence[str]) -> dict[str, Any]:
    """Return the parameters that were written. Runs code of the file: see `Estimator.load`.

    Args:
        directory: Where they are.
        kind: Name of the class.
        known: Names of its parameters.

    Raises:
        ConfigError: There is no such file, it is of another class or version, or it cannot be
            read here.
    """
    path = directory / ESTIMATOR_FILE
    if not path.exists():
        msg = f"There is no {ESTIMATOR_FILE} in {directory}: nothing was saved there by `save`"
        raise ConfigError(msg)
    try:
        found = pickle.loads(path.read_bytes())  # noqa: S301 - told in `load`
        kind_found, parameters = found["kind"], dict(found["parameters"])
    except Exception as exc:
        msg = (
            f"{path} cannot be read: {type(exc).__name__}: {exc}. Modules that its functions "
            "come from must be importable here, and Python must be of the same version"
        )
        raise ConfigError(msg) from exc
    if kind_found != kind:
        msg = f"{path} is of a {kind_found}, not of a {kind}: load it with {kind_found}'s class"
        raise ConfigError(msg)
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        msg = (
            f"{path} has the parameters {', '.join(unknown)}, which {kind} does not have here: "
            "another version of Headrace has written it. Use that one, or make a new estimator"
        )
        raise ConfigError(msg)
    return parameters


def write_history(directory: Path, history: History) -> None:
    """Write what each epoch brought."""
    with replacing(directory / HISTORY_FILE) as file:
        file.write(history.to_json().encode())


def read_history(directory: Path) -> History:
    """Return what `write_history` wrote.

    Raises:
        ConfigError: There is none.
    """
    path = directory / HISTORY_FILE
    if not path.exists():
        msg = (
            f"There is no {HISTORY_FILE} in {directory}: the worker that saves has written it "
            "elsewhere. All hosts and this program must reach `model_dir` by the same path"
        )
        raise ConfigError(msg)
    return History.from_json(path.read_text())


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, which is there as a whole or not at all; nothing where it is the same."""
    if target.exists() and target.samefile(source):
        return
    with source.open("rb") as old, replacing(target) as new:
        shutil.copyfileobj(old, new)


def new_temporary_directory() -> Path:
    """Return a directory that is removed when this program ends."""
    path = Path(tempfile.mkdtemp(prefix="headrace-model-"))
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def _require_pickles(kind: str, name: str, value: Any) -> None:
    try:
        cloudpickle.dumps(value)
    except Exception as exc:
        msg = (
            f"{kind}({name}={value!r}) cannot be saved: {type(exc).__name__}: {exc}. Open "
            "files, locks and sessions inside the function, do not capture them"
        )
        raise ConfigError(msg) from exc
