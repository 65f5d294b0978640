"""Models of TensorFlow and Keras in memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from headrace._environ import NEEDS_GPU, environment_value
from headrace.errors import ConfigError
from headrace.inference import LoadedModel, TensorSpec
from headrace.role import to_numpy

__all__ = ["KerasInputs", "load_keras_model", "load_saved_model", "read_keras_model"]

_LOG = logging.getLogger(__name__)


def load_saved_model(path: Path, signature: str, threads: int | None) -> LoadedModel:
    """Return a signature of what is at `path`; see `SavedModel`."""
    _require_gpu()
    _use_threads(threads)
    loaded = tf.saved_model.load(str(path))
    if signature not in loaded.signatures:
        found = ", ".join(loaded.signatures) or "none"
        msg = f"{path} has no signature {signature!r}; it has {found}"
        raise ConfigError(msg)
    return _Signature(loaded, loaded.signatures[signature])


def load_keras_model(
    path: Path, custom_objects: Mapping[str, Any], threads: int | None
) -> LoadedModel:
    """Return the model at `path`; see `KerasModel`."""
    _require_gpu()
    _use_threads(threads)
    return _Keras(read_keras_model(path, custom_objects))


def read_keras_model(path: Path, custom_objects: Mapping[str, Any]) -> Any:
    """Return the model of Keras in a file, not compiled.

    Raises:
        ConfigError: Keras cannot read it.
    """
    try:
        return keras.models.load_model(path, custom_objects=dict(custom_objects), compile=False)
    except Exception as exc:  # Keras raises ValueError, TypeError and others
        msg = f"{path} cannot be read by Keras {keras.__version__}: {exc}"
        raise ConfigError(msg) from exc


class _Loaded:
    """What both have in common."""

    is_ordered = True
    takes_columns = False
    can_try = True

    def columns(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        return {name: _own(array) for name, array in to_numpy(batch).items()}

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        return tf.convert_to_tensor(array)


class _Signature(_Loaded):
    def __init__(self, loaded: Any, function: Callable[..., Any]) -> None:
        self._loaded = loaded  # owns the variables of the function
        self._function = function
        _, specs = function.structured_input_signature  # type: ignore[attr-defined] # no types
        declared = [_declared(name, spec) for name, spec in specs.items()]
        self.is_ordered = False  # the file keeps them by name
        self.inputs: tuple[TensorSpec, ...] | None = tuple(declared)

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Call by name, which is all that a signature knows."""
        assert self.inputs is not None
        by_place = {spec.name: value for spec, value in zip(self.inputs, args, strict=False)}
        tensors = {
            name: tf.convert_to_tensor(value) for name, value in {**by_place, **named}.items()
        }
        return _as_numpy(self._function(**tensors))


class KerasInputs(_Loaded):
    """What a Keras model takes, as far as it declares it."""

    def __init__(self, model: Any) -> None:
        self.inputs: tuple[TensorSpec, ...] | None = None
        self._structure: Any = None  # of the tensors that a functional model takes
        if getattr(model, "inputs", None):
            self.inputs = tuple(_declared(each.name, each) for each in model.inputs)
            is_sequential = isinstance(model, keras.Sequential)  # knows no `input` when loaded
            self._structure = model.inputs[0] if is_sequential else model.input
            self.is_ordered = not isinstance(self._structure, dict)

    def arrange(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Return one tensor, or several in the structure that the model takes."""
        if self.inputs is not None:
            by_place = {
                spec.name: value for spec, value in zip(self.inputs, args, strict=False)
            }
            given = {**by_place, **named}
            return tf.nest.map_structure(lambda each: given[each.name], self._structure)
        return dict(named) if named else args[0] if len(args) == 1 else list(args)


class _Keras(KerasInputs):
    def __init__(self, model: Any) -> None:
        super().__init__(model)
        # One graph for batches of every size, as `predict` makes one.
        self._call = tf.function(
            lambda value: model(value, training=False), reduce_retracing=True
        )

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        values = self.arrange(args, named)
        return _as_numpy(self._call(tf.nest.map_structure(tf.convert_to_tensor, values)))


def _require_gpu() -> None:
    if environment_value(NEEDS_GPU) is not None and not tf.config.list_physical_devices("GPU"):
        msg = "device='cuda', but TensorFlow finds no GPU here; use device='auto' or 'cpu'"
        raise ConfigError(msg)


def _use_threads(threads: int | None) -> None:
    if threads is None:
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    except RuntimeError:  # can be set before the first operation only
        _LOG.warning(
            "TensorFlow has computed here before: it goes on with %d threads, not %d",
            tf.config.threading.get_intra_op_parallelism_threads(),
            threads,
        )


def _declared(name: str, spec: Any) -> TensorSpec:
    dtype = str(getattr(spec.dtype, "name", spec.dtype))
    known = tf.TensorShape(spec.shape)
    shape = None if known.rank is None else tuple(known.as_list())
    return TensorSpec(name, "str" if dtype == "string" else dtype, shape)


def _own(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array whose memory TensorFlow may keep: not that of the queue."""
    return array if array.flags.owndata else array.copy()


def _as_numpy(returned: Any) -> Any:
    return tf.nest.map_structure(np.asarray, returned)
