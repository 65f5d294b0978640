"""Arrow columns as what TensorFlow holds, by exact specs from the schema of the input.

| column | element of the dataset |
|---|---|
| integers, FLOAT, DOUBLE, BOOLEAN | tensor (rows,) of the same type |
| CHAR, VARCHAR, BINARY, VARBINARY | tensor (rows,) of tf.string |
| ARRAY with a shape given for it | tensor (rows, *shape) |
| other ARRAY | ragged tensor (rows, None) |

Other types have no counterpart: cast them in SQL, or leave them out.

NULL: NaN in floating point. Elsewhere a column that is named in `defaults` has that value for
NULL; with ``nulls="mask"`` each column that may be NULL and has no NaN comes with a second
tensor ``<column>__valid`` and holds zero, an empty string or an empty list there; otherwise
NULL is an error that names the column. Inside an ARRAY the same holds for its elements, without
mask.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from headrace.errors import ConfigError, DataError
from headrace.role.arrays import VALID_SUFFIX, NullRule

__all__ = ["ColumnPlan", "plan_columns"]

Array = npt.NDArray[Any]
_ROW_SPLITS = np.dtype(np.int64)
_TEXT = np.dtype(object)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnPlan:
    """One tensor of an element.

    Attributes:
        name: Its key.
        dtype: Type of its values; object stands for strings and bytes.
        shape: Shape of one row; None for a ragged tensor.
        read: Makes its arrays from a batch: the values, and for a ragged tensor the row splits.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...] | None
    read: Callable[[pa.RecordBatch], list[Array]]

    @property
    def dtypes(self) -> list[np.dtype[Any]]:
        """Types of the arrays that `read` returns."""
        return [self.dtype] if self.shape is not None else [self.dtype, _ROW_SPLITS]


def plan_columns(
    schema: pa.Schema,
    *,
    columns: Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    nulls: NullRule = "error",
    defaults: Mapping[str, Any] | None = None,
) -> list[ColumnPlan]:
    """Return one plan for each tensor of an element, in the order of the columns.

    Args:
        schema: Columns of every batch.
        columns: Which of them; None for all.
        shapes: Shape of one row, for columns of arrays that have one length.
        nulls: "error" or "mask".
        defaults: Values for NULL, by column.

    Raises:
        ConfigError: A name is in no schema, or a column has a type that TensorFlow does not
            hold, or a default or shape that does not fit its type; or `nulls` is none of both.
    """
    if nulls not in get_args(NullRule):
        msg = f"ctx.dataset(nulls={nulls!r}) must be 'error' or 'mask'"
        raise ConfigError(msg)
    shapes, defaults = dict(shapes or {}), dict(defaults or {})
    chosen = list(schema.names) if columns is None else [*dict.fromkeys(columns)]
    for name in (*chosen, *shapes, *defaults):
        if name not in schema.names:
            msg = f"ctx.dataset: there is no column {name!r}; the input has {schema.names}"
            raise ConfigError(msg)
    plans = []
    for name in chosen:
        field = schema.field(name)
        plan = _Column(field, shapes.get(name), nulls, defaults.get(name))
        plans.append(plan.values())
        if plan.has_mask:
            plans.append(plan.mask(schema))
    return plans


class _Column:
    def __init__(
        self, field: pa.Field, shape: Sequence[int] | None, nulls: NullRule, default: Any
    ) -> None:
        self._name, kind = field.name, field.type
        self._is_list = _is_list(kind)
        self._kind = kind.value_type if self._is_list else kind
        self._dtype = _dtype_of(self._kind, field)
        self._shape = None if shape is None else tuple(shape)
        if self._shape is not None and not self._is_list:
            msg = f"ctx.dataset: shapes names {field.name!r}, which is {kind} and no ARRAY"
            raise ConfigError(msg)
        self._default = None if default is None else self._require_fits(default)
        is_nan = pt.is_floating(kind)
        self.has_mask = nulls == "mask" and field.nullable and not is_nan and default is None
        self._fills = self.has_mask or default is not None

    def values(self) -> ColumnPlan:
        shape: tuple[int, ...] | None = ()
        read: Callable[[pa.RecordBatch], list[Array]] = self._read_values
        if self._is_list:
            shape = self._shape
            read = self._read_ragged if shape is None else self._read_dense
        return ColumnPlan(name=self._name, dtype=self._dtype, shape=shape, read=read)

    def mask(self, schema: pa.Schema) -> ColumnPlan:
        name = self._name + VALID_SUFFIX
        if name in schema.names:
            msg = f"nulls='mask' adds {name!r}, and a column has that name; rename it in SQL"
            raise ConfigError(msg)

        def read(batch: pa.RecordBatch) -> list[Array]:
            return [batch.column(self._name).is_valid().to_numpy(zero_copy_only=False)]

        return ColumnPlan(name=name, dtype=np.dtype(bool), shape=(), read=read)

    def _read_values(self, batch: pa.RecordBatch) -> list[Array]:
        return [self._to_array(batch.column(self._name))]

    def _read_ragged(self, batch: pa.RecordBatch) -> list[Array]:
        column = self._without_null(batch.column(self._name))
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        splits = np.zeros(len(column) + 1, _ROW_SPLITS)
        np.cumsum(lengths, out=splits[1:])
        return [self._to_array(column.flatten(), is_element=True), splits]

    def _read_dense(self, batch: pa.RecordBatch) -> list[Array]:
        assert self._shape is not None
        column = self._without_null(batch.column(self._name))
        length = int(np.prod(self._shape))
        lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
        if (lengths != length).any():
            wrong = int(lengths[lengths != length][0])
            msg = (
                f"Column {self._name!r} has a list of {wrong} elements; shapes says "
                f"{self._shape}, which is {length}. Leave the column out of shapes to get it "
                "as a ragged tensor."
            )
            raise DataError(msg)
        values = self._to_array(column.flatten(), is_element=True)
        return [values.reshape(len(column), *self._shape)]

    def _without_null(self, column: pa.Array) -> pa.Array:
        """Return a column of lists in which every row has one."""
        if not column.null_count:
            return column
        if not self._fills:
            raise self._has_null(column)
        fill = [] if self._default is None else [self._default]
        if self._shape is not None:
            fill = [self._zero() if self._default is None else self._default] * int(
                np.prod(self._shape)
            )
        return pc.fill_null(column, pa.scalar(fill, column.type))

    def _to_array(self, column: pa.Array, *, is_element: bool = False) -> Array:
        if column.null_count and not pt.is_floating(self._kind):
            if not self._fills:
                raise self._has_null(column, is_element=is_element)
            fill = self._zero() if self._default is None else self._default
            column = pc.fill_null(column, pa.scalar(fill, column.type))
        elif column.null_count and self._default is not None:
            column = pc.fill_null(column, pa.scalar(self._default, column.type))
        is_viewed = not column.null_count and self._dtype.kind not in "Ob"
        array: Array = column.to_numpy(zero_copy_only=is_viewed)
        return array

    def _zero(self) -> Any:
        if self._dtype == _TEXT:
            return b"" if _is_bytes(self._kind) else ""
        return self._dtype.type(0).item()

    def _require_fits(self, default: Any) -> Any:
        try:
            if pt.is_integer(self._kind):
                default = operator.index(default)  # Arrow would cut off a fraction
            return pa.scalar(default, self._kind).as_py()
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as exc:
            msg = f"ctx.dataset: defaults[{self._name!r}]={default!r} is no {self._kind}: {exc}"
            raise ConfigError(msg) from exc

    def _has_null(self, column: pa.Array, *, is_element: bool = False) -> DataError:
        what = "elements" if is_element else "values"
        return DataError(
            f"Column {self._name!r} ({self._kind}) has {column.null_count} NULL in "
            f"{len(column)} {what}, which a tensor cannot hold. Say what it means: "
            f"COALESCE({self._name}, ...) in SQL, ctx.dataset(defaults={{{self._name!r}: ...}})"
            f", or nulls='mask', which adds {self._name + VALID_SUFFIX!r}."
        )


def _dtype_of(kind: pa.DataType, field: pa.Field) -> np.dtype[Any]:
    if pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind):
        return np.dtype(kind.to_pandas_dtype())
    if pt.is_string(kind) or pt.is_large_string(kind) or _is_bytes(kind):
        return _TEXT
    msg = (
        f"ctx.dataset: column {field.name!r} is {field.type}, for which TensorFlow has no "
        "type. "
        f"CAST it in SQL (to DOUBLE, BIGINT or STRING), or leave it out with columns=[...]; "
        "ctx.batches() has it as NumPy."
    )
    raise ConfigError(msg)


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pt.is_binary(kind) or pt.is_large_binary(kind) or pt.is_fixed_size_binary(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind))
