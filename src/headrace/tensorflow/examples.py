"""Elements of a dataset by the plan of an estimator: what goes into the model, and labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt
import tensorflow as tf

from headrace.errors import ConfigError
from headrace.estimator import ExamplePlan
from headrace.inference import Inputs, LoadedModel, Source
from headrace.tensorflow.loaded import KerasInputs

__all__ = ["ExampleLayout"]

Array = npt.NDArray[Any]
_WIDTHS = (2, 3)  # of arrays on trial: a dimension that differs then is not known
_TRIED_ROWS = 2


class _Arrays(KerasInputs):
    """Makes NumPy arrays, which tf.data takes, where scoring makes tensors."""

    def tensor(self, array: Array) -> Any:
        return array

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        raise NotImplementedError  # Keras calls the model


class ExampleLayout:
    """An `ElementLayout` of pairs: what the model is called with, and the labels.

    Types and shapes are found on rows of zeros, since the first rows may come late, or never.

    Args:
        features: What of a row goes into the model.
        label: Column of what it should say, or several.
        schema: Columns of the batches.
        model: A Keras model.

    Attributes:
        dtypes: TensorFlow's types of the arrays.
        zeros: What the model is called with and labels, of two rows, in those types and shapes.
        can_be_cut: Whether an array has one entry for each row: a function may look at all.
        rows: How many rows were read so far.
        error: What `dataset` ended with: TensorFlow hands on its text only.

    Raises:
        ConfigError: A column is missing or of a wrong type, does not fit what the model
            declares, or a function as `features` fails on zeros.
    """

    def __init__(self, features: Inputs, label: Source, schema: pa.Schema, model: Any) -> None:
        self._loaded = _Arrays(model)
        loaded: LoadedModel = self._loaded
        self._plan = ExamplePlan(features, label, schema, loaded)
        self._names: list[str] | None = None  # of arguments that have one
        tried = [self._read(_zeros(schema, width)) for width in _WIDTHS]
        self.dtypes: list[Any] = [_tf_type(array) for array in tried[0]]
        self._shapes = [
            tuple(
                n if n == m else None for n, m in zip(one.shape[1:], two.shape[1:], strict=True)
            )
            for one, two in zip(*tried, strict=True)
        ]
        self._take_declared_shapes()
        self.zeros = self._make_zeros(model)
        self.can_be_cut = not callable(features)
        self.rows = 0
        self.error: Exception | None = None

    def read(self, batch: pa.RecordBatch) -> list[Array]:
        """Return the arrays of one element; none of them shares memory with `batch`."""
        self.rows += batch.num_rows
        return self._read(batch)

    def read_batches(self, rows: int, batch: pa.RecordBatch) -> list[Array]:
        """Return the arrays of all batches of `rows` rows in `batch`, (batches, rows, ...)."""
        count = rows if batch.num_rows % rows == 0 else batch.num_rows
        return [each.reshape(-1, count, *each.shape[1:]) for each in self.read(batch)]

    def take_apart(
        self, tensors: Sequence[tf.Tensor], *, of_batches: bool = False
    ) -> list[tf.Tensor]:
        """Return one tensor for each part of the element."""
        whole = (None, None) if of_batches else (None,)
        for tensor, shape in zip(tensors, self._shapes, strict=True):
            tensor.set_shape((*whole, *shape))
        return list(tensors)

    def cut(self, tensors: Sequence[tf.Tensor]) -> tf.data.Dataset:
        """Return a dataset of the batches in the parts of what `read_batches` made."""
        return tf.data.Dataset.from_tensor_slices(tuple(tensors))

    def assemble(self, tensors: Sequence[tf.Tensor]) -> Any:
        """Return the pair that its parts make up."""
        *inputs, labels = tensors
        if self._names is None:
            return self._loaded.arrange(inputs, {}), labels
        by_name = dict(zip(self._names, inputs, strict=True))
        return self._loaded.arrange([], by_name), labels

    def dataset(self, batches: Iterator[pa.RecordBatch]) -> tf.data.Dataset:
        """Return a dataset of some batches, to be iterated once."""
        signature = tuple(
            tf.TensorSpec((None, *shape), dtype)
            for dtype, shape in zip(self.dtypes, self._shapes, strict=True)
        )

        def read() -> Iterator[tuple[Array, ...]]:
            try:
                for batch in batches:
                    yield tuple(self._read(batch))
            except Exception as error:
                self.error = error
                raise

        made = tf.data.Dataset.from_generator(read, output_signature=signature)
        return made.map(
            tf.autograph.experimental.do_not_convert(lambda *parts: self.assemble(parts))
        )

    def _read(self, batch: pa.RecordBatch) -> list[Array]:
        example = self._plan.make(batch)
        self._names = list(example.call.named) or None
        inputs = [*example.call.args, *example.call.named.values()]
        return [_as_array(each) for each in (*inputs, example.labels)]

    def _take_declared_shapes(self) -> None:
        """Put in what the model says of the size of arrays."""
        specs = {spec.name: spec.shape for spec in self._loaded.inputs or ()}
        known = [specs.get(name) for name in self._names] if self._names else [*specs.values()]
        for place, declared in enumerate(known[: len(self._shapes) - 1]):
            own = self._shapes[place]
            if declared is not None and len(declared) == len(own) + 1:
                pairs = zip(own, declared[1:], strict=True)
                self._shapes[place] = tuple(n if m is None else m for n, m in pairs)

    def _make_zeros(self, model: Any) -> Any:
        """Return a pair of zeros; a width that nobody has told is that of the model's output.

        Where that is not known either, any will do, as for the model itself.
        """
        shapes = [*self._shapes]
        outputs: list[Any] = list(getattr(model, "outputs", None) or [])
        if len(outputs) == 1 and len(outputs[0].shape) == len(shapes[-1]) + 1:
            pairs = zip(shapes[-1], outputs[0].shape[1:], strict=True)
            shapes[-1] = tuple(n if m is None else m for m, n in pairs)
        whole = [
            (_TRIED_ROWS, *(_WIDTHS[0] if n is None else n for n in each)) for each in shapes
        ]
        return self.assemble(
            [tf.zeros(each, dtype) for each, dtype in zip(whole, self.dtypes, strict=True)]
        )


def _zeros(schema: pa.Schema, width: int) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [_zeros_of(field.type, width) for field in schema], schema=schema
    )


def _zeros_of(kind: pa.DataType, width: int) -> pa.Array:
    if pt.is_list(kind):
        flat = _zeros_of(kind.value_type, width)
        values = pa.concat_arrays([flat.slice(0, 1)] * (width * _TRIED_ROWS))
        offsets = pa.array(range(0, width * _TRIED_ROWS + 1, width), pa.int32())
        return pa.ListArray.from_arrays(offsets, values, type=kind)
    if pt.is_string(kind) or pt.is_binary(kind):
        return pa.array([""] * _TRIED_ROWS).cast(kind)
    try:
        return pa.array([0] * _TRIED_ROWS, pa.int8()).cast(kind)
    except pa.ArrowException:
        return pa.nulls(_TRIED_ROWS, kind)  # nothing that goes into a model as it is


def _as_array(value: Any) -> Array:
    array = value.numpy() if isinstance(value, tf.Tensor) else np.asarray(value)
    if not array.ndim:
        msg = f"features must make arrays with a row for each of the batch's, not {value!r}"
        raise ConfigError(msg)
    return array


def _tf_type(array: Array) -> tf.DType:
    return tf.string if array.dtype.kind in "OSU" else tf.as_dtype(array.dtype)
