"""Handles of models of TensorFlow and Keras: plain values, which import neither."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace._imports import quick_imports
from headrace.errors import ConfigError
from headrace.inference import LoadedModel, absolute_path

__all__ = ["KerasModel", "SavedModel"]


@dataclass(frozen=True, slots=True)
class SavedModel:
    """A model in TensorFlow's SavedModel format.

    Attributes:
        path: Directory, as `model.export` and `tf.saved_model.save` write it. A relative one
            is taken from here.
        signature: Which of its signatures to call.

    Raises:
        ConfigError: `path` is a local URI with a host.

    Source: https://www.tensorflow.org/guide/saved_model.
    """

    path: str | Path
    signature: str = "serving_default"

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute_path(self.path))

    def load(self, threads: int | None, copy: Path | None = None) -> LoadedModel:
        """Read the model; see `Model.load`.

        Raises:
            ConfigError: There is no SavedModel, or it has no such signature; or there is no GPU
                and `predict` was told device="cuda".
        """
        path = copy or Path(self.path)
        if not (path / "saved_model.pb").exists():
            msg = f"There is no SavedModel (a directory with saved_model.pb) at {path} here"
            raise ConfigError(msg)
        with quick_imports():
            from headrace.tensorflow.loaded import load_saved_model

        return load_saved_model(path, self.signature, threads)


@dataclass(frozen=True, slots=True)
class KerasModel:
    """A model in a file of Keras 3.

    Attributes:
        path: What `model.save("....keras")` or `ctx.save` wrote. A relative one is taken from
            here.
        custom_objects: Classes and functions that the file names and Keras does not know. They
            travel by cloudpickle.

    Raises:
        ConfigError: `path` is a local URI with a host.
    """

    path: str | Path
    custom_objects: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", absolute_path(self.path))

    def load(self, threads: int | None, copy: Path | None = None) -> LoadedModel:
        """Read the model; see `Model.load`.

        Raises:
            ConfigError: There is no such file, or Keras cannot read it; or there is no GPU and
                `predict` was told device="cuda".
        """
        path = copy or Path(self.path)
        if not path.exists():
            msg = f"There is no .keras file at {path} on this host"
            raise ConfigError(msg)
        with quick_imports():
            from headrace.tensorflow.loaded import load_keras_model

        return load_keras_model(path, self.custom_objects, threads)
