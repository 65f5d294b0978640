"""The input of a worker as a `tf.data.Dataset`.

The dataset asks for rows when somebody asks the dataset, and reads nothing ahead of that:
asking for an element says that the earlier ones were handled, as in `ctx.batches`, but where
batches are small, for a whole portion at its end (`portions`). Leaving a loop loses no row:
what nobody took goes back. tf.data's own optimizations that read ahead are therefore off, for
what is built on the dataset too. Who wants to overlap reading and training adds
``.prefetch(2)``, but not beside ``ctx.checkpointed``: a checkpoint would miss those rows.

The function behind it is called on the thread that asks for an element, one call at a time as
long as one iteration goes on: that of a loop of your own, one of TensorFlow's where the asking
is part of a graph, as in ``fit``. Columns of one type travel as one matrix, which the graph
takes apart, mostly without a copy: each array that TensorFlow is given takes as long as copying
some thousand numbers (docs/adr/0101).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import tensorflow as tf

from headrace.errors import ConfigError
from headrace.role import NullRule
from headrace.tensorflow.columns import ColumnPlan, plan_columns
from headrace.tensorflow.internals import let_steps_wait_for_their_batch, map_in_place
from headrace.tensorflow.portions import Portions

__all__ = ["Element", "ElementLayout", "Layout", "build_dataset"]

Array = npt.NDArray[Any]
Element: TypeAlias = tuple[int, list[Array]]
"""The number of a portion, from 1, and its arrays."""


class ElementLayout(Protocol):
    """How an element is made of the columns of a batch."""

    @property
    def dtypes(self) -> list[Any]:
        """TensorFlow's types of the arrays that `read` returns."""

    @property
    def can_be_cut(self) -> bool:
        """Whether all arrays have one entry for each row."""

    def read(self, batch: pa.RecordBatch) -> list[Array]:
        """Return the arrays of one element; none of them shares memory with `batch`."""

    def read_batches(self, rows: int, batch: pa.RecordBatch) -> list[Array]:
        """Return the arrays of all batches of `rows` rows in `batch`."""

    def take_apart(
        self, tensors: Sequence[tf.Tensor], *, of_batches: bool = False
    ) -> list[tf.Tensor]:
        """Return one tensor for each part of the element, of what was read."""

    def cut(self, tensors: Sequence[tf.Tensor]) -> tf.data.Dataset:
        """Return a dataset of the batches in the parts of what `read_batches` made."""

    def assemble(self, tensors: Sequence[tf.Tensor]) -> Any:
        """Return the element that its parts make up."""


class Layout:
    """How an element is made of the columns of a batch.

    Args:
        plans: The tensors of the columns.
        features: Columns to stack into one float32 matrix (rows, k) in place of a mapping.
        label: Column, or columns, that become the second part of the element.

    Raises:
        ConfigError: A feature is no number, a feature or label is not among the columns, or
            `features` or `plans` is empty.
    """

    def __init__(
        self,
        plans: Sequence[ColumnPlan],
        *,
        features: Sequence[str] | None,
        label: str | Sequence[str] | None,
    ) -> None:
        if features is not None and not features:
            msg = "ctx.dataset(features=[]): name at least one column, or leave it out"
            raise ConfigError(msg)
        if not plans:
            msg = "ctx.dataset(columns=[]): name at least one column, or leave it out"
            raise ConfigError(msg)
        self._label = label
        labels = [label] if isinstance(label, str) else list(label or ())
        self._stacked = [_require_number(plans, name) for name in features or ()]
        by_name = {plan.name: plan for plan in plans}
        self._labels = [_require_there(by_name, "label", name) for name in labels]
        self._single = [plan for plan in plans if features is None and plan.name not in labels]
        self._plans = [*self._single, *self._labels]
        self._side_by_side: dict[np.dtype[Any], list[ColumnPlan]] = {}
        for plan in self._plans:
            if _is_number(plan):
                self._side_by_side.setdefault(plan.dtype, []).append(plan)
        self._others = [plan for plan in self._plans if not _is_number(plan)]
        self.dtypes: list[Any] = [tf.float32] if self._stacked else []
        self.dtypes += map(tf.as_dtype, self._side_by_side)
        self.dtypes += [_tf_type(dtype) for plan in self._others for dtype in plan.dtypes]
        self._shapes = [plan.shape for plan in self._plans]
        if self._stacked:
            self._shapes.insert(0, (len(self._stacked),))

    @classmethod
    def of_columns(
        cls,
        schema: pa.Schema,
        columns: Sequence[str] | None,
        *,
        features: Sequence[str] | None,
        label: str | Sequence[str] | None,
        shapes: Mapping[str, Sequence[int]] | None,
        nulls: NullRule,
        defaults: Mapping[str, Any] | None,
    ) -> Layout:
        """Return the layout for batches of a schema; see `ctx.dataset` for the arguments."""
        if columns is None and features is not None:
            columns = [*features, *([label] if isinstance(label, str) else label or ())]
        plans = plan_columns(
            schema, columns=columns, shapes=shapes, nulls=nulls, defaults=defaults
        )
        return cls(plans, features=features, label=label)

    @property
    def can_be_cut(self) -> bool:
        """Whether all arrays have one entry for each row."""
        return None not in self._shapes

    def read(self, batch: pa.RecordBatch) -> list[Array]:
        """Return the arrays of one element; none of them shares memory with `batch`.

        TensorFlow may use the memory of an array that it is given for the results of its own,
        and that of the batch is read again: by a later pass, or by another reader.
        """
        arrays: list[Array] = []
        if self._stacked:
            matrix = np.empty((batch.num_rows, len(self._stacked)), np.float32)
            for place, plan in enumerate(self._stacked):
                matrix[:, place] = plan.read(batch)[0]
            arrays.append(matrix)
        for dtype, plans in self._side_by_side.items():
            matrix = np.empty((len(plans), batch.num_rows), dtype)
            for place, plan in enumerate(plans):
                matrix[place] = plan.read(batch)[0]
            arrays.append(matrix)
        for plan in self._others:
            arrays += [a if a.flags.owndata else a.copy() for a in plan.read(batch)]
        return arrays

    def read_batches(self, rows: int, batch: pa.RecordBatch) -> list[Array]:
        """Return the arrays of all batches of `rows` rows in `batch`, (batches, rows, ...).

        Columns that lie side by side are (columns, batches, rows).
        """
        count = rows if batch.num_rows % rows == 0 else batch.num_rows
        arrays = self.read(batch)
        first = 1 if self._stacked else 0
        for place, each in enumerate(arrays):
            if first <= place < first + len(self._side_by_side):
                arrays[place] = each.reshape(len(each), -1, count)
            else:
                arrays[place] = each.reshape(-1, count, *each.shape[1:])
        return arrays

    def take_apart(
        self, tensors: Sequence[tf.Tensor], *, of_batches: bool = False
    ) -> list[tf.Tensor]:
        """Return one tensor for each part of the element, of what `read` made.

        Args:
            tensors: Of its arrays.
            of_batches: Whether `read_batches` made them.
        """
        whole = (None, None) if of_batches else (None,)
        rest = list(tensors)
        features = [rest.pop(0)] if self._stacked else []
        parts: dict[str, list[tf.Tensor]] = {}
        for plans in self._side_by_side.values():
            rows = tf.unstack(_shaped(rest.pop(0), (len(plans), *whole)))
            parts |= {plan.name: [row] for plan, row in zip(plans, rows, strict=True)}
        for plan in self._others:
            parts[plan.name] = [rest.pop(0) for _ in plan.dtypes]
        return features + [part for plan in self._plans for part in parts[plan.name]]

    def cut(self, tensors: Sequence[tf.Tensor]) -> tf.data.Dataset:
        """Return a dataset of the batches in the parts of what `read_batches` made."""
        known = [
            _shaped(each, (None, None, *(shape or ())))
            for each, shape in zip(tensors, self._shapes, strict=True)
        ]
        return tf.data.Dataset.from_tensor_slices(tuple(known))

    def assemble(self, tensors: Sequence[tf.Tensor]) -> Any:
        """Return the element that its parts make up."""
        rest = list(tensors)
        features: Any
        if self._stacked:
            features = _shaped(rest.pop(0), (None, len(self._stacked)))
        else:
            features = {plan.name: _tensor(plan, rest) for plan in self._single}
        labels = {plan.name: _tensor(plan, rest) for plan in self._labels}
        if self._label is None:
            return features
        return features, labels[self._label] if isinstance(self._label, str) else labels


def build_dataset(
    layout: ElementLayout,
    next_element: Callable[[bool], Element | None],
    portions: Portions | None,
) -> tf.data.Dataset:
    """Return a dataset of what `next_element` returns until it returns None.

    Args:
        layout: How elements look.
        next_element: Called with True at the beginning of an iteration, else with False. Its
            arrays are what `Layout.read` made of one batch, or `read_batches` of several.
        portions: Counts what is taken of several; None: each element is one.
    """

    def fetch(call: Array) -> list[Array]:
        try:
            element = next_element(int(call) == 0)
        except StopIteration as error:  # would be taken for the end of the data
            msg = (
                "StopIteration was raised by something that ctx.dataset called for its next "
                "batch, which is not its end: rows would be missing. The traceback of the "
                "StopIteration says where."
            )
            raise RuntimeError(msg) from error
        if element is None:
            raise StopIteration
        number, arrays = element
        return [np.array(number), *arrays]

    def produce(call: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        number, *tensors = tf.numpy_function(fetch, [call], [tf.int64, *layout.dtypes])
        return _shaped(number, ()), tuple(layout.take_apart(tensors, of_batches=True))

    def produce_element(call: tf.Tensor) -> Any:
        tensors = tf.numpy_function(lambda call: fetch(call)[1:], [call], layout.dtypes)
        return layout.assemble(layout.take_apart(tensors))

    def cut(take: Any, number: tf.Tensor, tensors: Any) -> tf.data.Dataset:
        return layout.cut(tensors).map(
            as_it_is(lambda *batch: layout.assemble(take(number, batch)))
        )

    as_it_is = tf.autograph.experimental.do_not_convert
    calls = tf.data.Dataset.counter()
    if portions is None:
        elements = map_in_place(calls, as_it_is(produce_element))
    else:
        produced = map_in_place(calls, as_it_is(produce))
        elements = produced.flat_map(as_it_is(functools.partial(cut, portions.take)))
    let_steps_wait_for_their_batch()
    options = tf.data.Options()
    options.experimental_optimization.map_parallelization = False
    options.experimental_optimization.inject_prefetch = False
    return elements.with_options(options)


def _tensor(plan: ColumnPlan, rest: list[tf.Tensor]) -> Any:
    values = rest.pop(0)
    if plan.shape is not None:
        return _shaped(values, (None, *plan.shape))
    splits = _shaped(rest.pop(0), (None,))
    values = _shaped(values, (None,))
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)


def _shaped(tensor: tf.Tensor, shape: tuple[int | None, ...]) -> tf.Tensor:
    """Tell the graph a shape that Python has seen to: no operation looks at it each time."""
    tensor.set_shape(shape)
    return tensor


def _is_number(plan: ColumnPlan) -> bool:
    return plan.shape == () and plan.dtype != np.dtype(object)


def _tf_type(dtype: np.dtype[Any]) -> tf.DType:
    return tf.string if dtype == np.dtype(object) else tf.as_dtype(dtype)


def _require_there(plans: dict[str, ColumnPlan], what: str, name: str) -> ColumnPlan:
    if name not in plans:
        msg = (
            f"ctx.dataset: {what} {name!r} is not among the columns {sorted(plans)}. Correct "
            "the name, or add it to `columns`."
        )
        raise ConfigError(msg)
    return plans[name]


def _require_number(plans: Sequence[ColumnPlan], name: str) -> ColumnPlan:
    plan = _require_there({each.name: each for each in plans}, "feature", name)
    if not _is_number(plan):
        msg = (
            f"ctx.dataset: feature {name!r} is no column of numbers, so it cannot be stacked "
            "into the matrix; leave `features` out to get a mapping of columns"
        )
        raise ConfigError(msg)
    return plan
