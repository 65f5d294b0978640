"""The forms in which a Keras model is served for each completed checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import tensorflow as tf

from headrace.errors import ConfigError
from headrace.tensorflow.saving import copy_of, save_atomically
from headrace.tensorflow.stateful import as_stateful

__all__ = ["KerasForm", "ServedForm"]

ServedForm: TypeAlias = Literal["keras", "saved_model"]
_SUFFIXES = {"keras": ".keras", "saved_model": ""}


class KerasForm:
    """A copy of the model, on the CPU and not compiled, that is given the values to write.

    Args:
        model: A built Keras model.
        form: "keras" for a `.keras` file, "saved_model" for a directory.

    Raises:
        ConfigError: The model cannot be copied, or there is no such form.
    """

    def __init__(self, model: Any, form: ServedForm = "keras") -> None:
        if form not in _SUFFIXES:
            msg = f"ctx.exported(form={form!r}) must be 'keras' or 'saved_model'"
            raise ConfigError(msg)
        if not isinstance(model, keras.Model):
            msg = f"ctx.exported takes a Keras model, not a {type(model).__name__}"
            raise ConfigError(msg)
        self.suffix = _SUFFIXES[form]
        try:
            with tf.device("CPU"):
                self._copy = copy_of(model)
            self._values = _values_of(self._copy)
            self._values.load_state_dict(_values_of(model).state_dict())
        except Exception as exc:
            msg = (
                f"export_to: the {type(model).__name__} cannot be copied, and each version is "
                "written from a copy. A class of your own needs get_config, and to be built by "
                f"its input shape. {type(exc).__name__}: {exc}"
            )
            raise ConfigError(msg) from exc

    def write(self, state: Any, path: Path) -> None:
        """Write it; see `headrace.role.Servable`."""
        self._values.load_state_dict(state)
        save_atomically(self._copy, path)


def _values_of(model: Any) -> Any:
    return as_stateful({"model": model}, Path())["model"]
