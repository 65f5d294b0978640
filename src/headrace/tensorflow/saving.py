"""How a model is written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from headrace.errors import ConfigError
from headrace.role import put_in_place
from headrace.tensorflow.ps_scope import is_on_server

__all__ = ["copy_of", "save_atomically"]

_WEIGHTS = ".weights.h5"
_WHOLE = ".keras"


def save_atomically(thing: Any, path: Path) -> None:
    """Write `thing` to `path`, which is replaced as a whole.

    The name says the form: ``.keras`` for a Keras model, ``.weights.h5`` for its weights, and a
    name without suffix for a SavedModel (a directory) of a Keras model or a `tf.Module`.
    Missing directories are made. Variables on parameter servers are written with their present
    values, as ordinary ones of a model that is not compiled.

    Raises:
        ConfigError: The name has another suffix, or does not fit the thing.
    """
    is_model = isinstance(thing, keras.Model)
    suffix = next((each for each in (_WEIGHTS, _WHOLE) if path.name.endswith(each)), "")
    if (suffix and not is_model) or (not suffix and path.suffix):
        msg = (
            f"ctx.save(name={path.name!r}) of a {type(thing).__name__}: the name of a Keras "
            f"model ends in {_WHOLE!r}, that of its weights in {_WEIGHTS!r}, and that of a "
            "SavedModel (also of a tf.Module) has no suffix"
        )
        raise ConfigError(msg)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as place:
        draft = Path(place) / f"draft{suffix}"
        if not is_model:
            tf.saved_model.save(thing, str(draft))
        elif suffix == _WEIGHTS:
            thing.save_weights(draft)
        elif suffix == _WHOLE:
            _local(thing).save(draft)
        else:
            _local(thing).export(str(draft), verbose=False)
        _sync(draft)
        put_in_place(draft, path, aside=Path(place) / "former")


def _local(model: Any) -> Any:
    """Return the model, or a copy with ordinary variables, which is not compiled."""
    if not any(is_on_server(variable) for variable in model.variables):
        return model
    copy = copy_of(model)
    copy.set_weights(model.get_weights())
    return copy


def copy_of(model: Any) -> Any:
    """Return a built model of the same layers with values of its own, which is not compiled."""
    was_compiled, model.compiled = model.compiled, False  # a copy would look functions up
    try:
        copy = keras.models.clone_model(model)
    finally:
        model.compiled = was_compiled
    if not copy.built:
        copy.build(model.input_shape)
    return copy


def _sync(path: Path) -> None:
    for each in (path, *path.rglob("*")) if path.is_dir() else (path,):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
