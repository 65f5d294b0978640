"""What is in the directory of an estimator, and of a fitted model.

| file | what |
|---|---|
| estimator.pkl | class and parameters, by cloudpickle |
| model.pt, model.keras | the trained weights, in the framework's own format |
| history.json | what each epoch brought, and in which fit |
"""

from __future__ import annotations

import atexit
import json
import pickle
import secrets
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cloudpickle

from headrace.errors import ConfigError
from headrace.estimator.history import History
from headrace.estimator.parameters import Parameters
from headrace.role import replacing

__all__ = [
    "ESTIMATOR_FILE",
    "HISTORY_FILE",
    "FitRecord",
    "copy_file",
    "new_temporary_directory",
    "read_history",
    "read_parameters",
    "write_parameters",
]

ESTIMATOR_FILE = "estimator.pkl"
HISTORY_FILE = "history.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """What the worker that saves writes beside the model; travels there.

    Attributes:
        parameters: Content of the file of parameters, as they were when the fit was planned.
        run_id: Tells this fit from others into the same directory.
    """

    parameters: bytes
    run_id: str

    @classmethod
    def of(cls, estimator: Parameters) -> FitRecord:
        """Return that of a new fit.

        Raises:
            ConfigError: A parameter cannot be pickled; the text has its name.
        """
        return cls(parameters=_pickled(estimator), run_id=secrets.token_hex(8))

    def write(self, directory: Path, history: History) -> None:
        """Write the parameters, and then what each epoch brought."""
        with replacing(directory / ESTIMATOR_FILE) as file:
            file.write(self.parameters)
        text = json.dumps({"run_id": self.run_id, **history.to_dict()}, indent=1)
        with replacing(directory / HISTORY_FILE) as file:
            file.write(text.encode())


def write_parameters(directory: Path, estimator: Parameters) -> None:
    """Write the parameters of an estimator into a directory, which is made if it is missing.

    Raises:
        ConfigError: One of them cannot be pickled; the text has its name.
    """
    content = _pickled(estimator)
    with replacing(directory / ESTIMATOR_FILE) as file:
        file.write(content)


def read_parameters(
    directory: Path, wanted: type[Parameters]
) -> tuple[type[Parameters], dict[str, Any]]:
    """Return class and parameters that were written. Runs code: see `Estimator.load`.

    Args:
        directory: Where they are.
        wanted: The class, or what it derives from.

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
        kind, parameters = found["class"], dict(found["parameters"])
        name: str = kind.__name__
    except Exception as exc:
        msg = (
            f"{path} cannot be read: {type(exc).__name__}: {exc}. Modules that its functions "
            "come from must be importable here, and Python must be of the same version"
        )
        raise ConfigError(msg) from exc
    if name == wanted.__name__:
        kind = wanted  # a class of a script that runs again is another one each time
    if not issubclass(kind, wanted):
        fitted = getattr(kind, "fitted_class", kind).__name__
        msg = (
            f"{path} is of a {name}, not of a {wanted.__name__}: use {name}.load, or "
            f"{fitted}.load for the model"
        )
        raise ConfigError(msg)
    unknown = sorted(set(parameters) - set(kind.parameter_names()))
    if unknown:
        msg = (
            f"{path} has the parameters {', '.join(unknown)}, which {name} does not have here: "
            "another version has written it. Use that one, or make a new estimator"
        )
        raise ConfigError(msg)
    return kind, parameters


def read_history(directory: Path, run_id: str | None = None) -> History:
    """Return what `FitRecord.write` wrote.

    Args:
        directory: Where it is.
        run_id: Of the fit that is to have written it; None: any.

    Raises:
        ConfigError: There is none, or it is of another fit.
    """
    path = directory / HISTORY_FILE
    if not path.exists():
        msg = (
            f"There is no {HISTORY_FILE} in {directory}: the worker that saves has written it "
            "elsewhere. All hosts and this program must reach `model_dir` by the same path"
        )
        raise ConfigError(msg)
    text = path.read_text()
    if run_id is not None and json.loads(text).get("run_id") != run_id:
        msg = (
            f"{path} is of another fit: the worker that saves has written its own elsewhere, "
            "or another fit has written here since. All hosts and this program must reach "
            "`model_dir` by the same path, and fits that run at the same time need their own"
        )
        raise ConfigError(msg)
    return History.from_json(text)


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


def _pickled(estimator: Parameters) -> bytes:
    kind, parameters = type(estimator), estimator.get_params(deep=False)
    for name, value in parameters.items():
        _require_pickles(kind.__name__, name, value)
    pickled: bytes = cloudpickle.dumps({"class": kind, "parameters": parameters})
    return pickled


def _require_pickles(kind: str, name: str, value: Any) -> None:
    try:
        cloudpickle.dumps(value)
    except Exception as exc:
        msg = (
            f"{kind}({name}={value!r}) cannot be saved: {type(exc).__name__}: {exc}. Open "
            "files, locks and sessions inside the function, do not capture them"
        )
        raise ConfigError(msg) from exc
