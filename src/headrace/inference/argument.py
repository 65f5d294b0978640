"""One argument of a model: which columns it is made of, and how."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from headrace.errors import ConfigError, DataError
from headrace.inference.inputs import Source
from headrace.inference.model import LoadedModel, TensorSpec
from headrace.role import to_numpy

__all__ = ["Argument"]

Array = npt.NDArray[Any]
_FLOAT32 = "float32"


class Argument:
    """Makes one argument of every batch of one schema. One thread.

    Args:
        source: A column, or several numbers side by side.
        spec: What the model says of it; None: nothing.
        schema: Columns of the batches.

    Attributes:
        names: The columns.
        refuses_null: Whether `make` raises where one has NULL.

    Raises:
        ConfigError: A column is missing or of a wrong type, or does not fit `spec`; the text
            has both sides.
    """

    def __init__(self, source: Source, spec: TensorSpec | None, schema: pa.Schema) -> None:
        self.names = [source] if isinstance(source, str) else list(source)
        self._is_stack = isinstance(source, list)
        self._shape = None if spec is None else spec.shape
        declared = None if spec is None else spec.dtype
        _require_columns(self.names, schema, is_stack=self._is_stack)
        own = [_given(schema.field(name)) for name in self.names]
        # To convert to; None: as it is. Text has no type of its own in NumPy.
        self._dtype: np.dtype[Any] | None = None
        if self._is_stack:
            self._dtype = np.dtype(declared or _FLOAT32)
        elif declared not in (None, "str", own[0].dtype):
            self._dtype = np.dtype(declared)
        # Columns of the matrix's type are put together by Arrow, which refuses NULL.
        kinds = {str(schema.field(name).type) for name in self.names}
        is_plain = len(kinds) == 1 and kinds != {"bool"} and own[0].dtype == str(self._dtype)
        self.refuses_null = self._is_stack and is_plain
        self._wants_column = not self._is_stack and self._rank == 2 and len(_shape(own[0])) == 1
        if spec is None:
            return
        whole = TensorSpec(", ".join(self.names), own[0].dtype, _shape(own[0]))
        if self._is_stack:
            whole = TensorSpec(whole.name, str(self._dtype), (None, len(own)))
        misfits = [each for each in own if not _fits_type(each, spec)]
        if misfits or not _fits_shape(whole, spec):
            told = misfits[0] if misfits else whole
            msg = f"The model takes {spec}, and inputs={source!r} gives {told}"
            raise ConfigError(msg)

    def make(self, batch: pa.RecordBatch, model: LoadedModel) -> Any:
        """Return the argument for the rows of `batch`.

        Raises:
            DataError: An integer is too large for the model's type, or arrays have different
                lengths.
            pa.ArrowTypeError: A column has NULL, and `refuses_null`.
        """
        if self._is_stack:
            return model.tensor(self._stacked(batch))
        alone = batch.select(self.names)
        if self._dtype is None and not self._wants_column:
            tensor = model.columns(alone)[self.names[0]]
            _require_matrix(self.names[0], alone, tensor)
            return tensor
        array = to_numpy(alone)[self.names[0]]
        _require_matrix(self.names[0], alone, array)
        dtype = self._dtype or array.dtype
        _require_range(self.names[0], array, dtype)
        array = array.astype(dtype)  # a copy: nobody else has it
        return model.tensor(array[:, None] if self._wants_column else array)

    def zeros(self, kind: pa.DataType, rows: int) -> pa.Array | None:
        """Return `rows` zeros for a column of it; None if nobody knows how they look."""
        if pt.is_list(kind) and _is_number(kind.value_type):
            width = self._shape[-1] if self._shape else None
            if width is None:
                return None
            flat = pa.array([0] * (width * rows), pa.int8()).cast(kind.value_type)
            offsets = pa.array(range(0, width * rows + 1, width or 1), pa.int32())
            return pa.ListArray.from_arrays(offsets, flat, type=kind)
        return pa.array([0] * rows, pa.int8()).cast(kind) if _is_number(kind) else None

    @property
    def _rank(self) -> int | None:
        return None if self._shape is None else len(self._shape)

    def _stacked(self, batch: pa.RecordBatch) -> Array:
        """Return columns of numbers side by side, (rows, columns), row after row."""
        assert self._dtype is not None
        if self.refuses_null:
            made: Array = batch.select(self.names).to_tensor().to_numpy()
            return made
        matrix = np.empty((batch.num_rows, len(self.names)), self._dtype)
        for place, name in enumerate(self.names):
            column = batch.column(name)
            array = column.to_numpy(zero_copy_only=not pt.is_boolean(column.type))
            _require_range(name, array, self._dtype)
            matrix[:, place] = array
        return matrix


def _require_columns(names: list[str], schema: pa.Schema, *, is_stack: bool) -> None:
    for name in names:
        if name not in schema.names:
            msg = (
                f"inputs: there is no column {name!r}; the rows have {', '.join(schema.names)}"
            )
            raise ConfigError(msg)
        kind = schema.field(name).type
        if is_stack and not _is_number(kind):
            msg = (
                f"inputs: column {name!r} ({kind}) is among {names}, which become one matrix, "
                "and is no number of the model's. CAST it to DOUBLE or INT in SQL, or give it "
                "as an argument of its own"
            )
            raise ConfigError(msg)


def _require_range(name: str, array: Array, dtype: np.dtype[Any]) -> None:
    """Refuse integers that a smaller type would change."""
    if not (array.dtype.kind in "iu" and dtype.kind in "iu") or not array.size:
        return
    if np.can_cast(array.dtype, dtype):
        return
    limits = np.iinfo(dtype)
    for value in (array.min(), array.max()):
        if not limits.min <= value <= limits.max:
            msg = (
                f"Column {name!r} has the value {value}, and the model takes {dtype}, which "
                f"ends at {limits.min} and {limits.max}: it would become another number. "
                "Filter such rows in SQL, or choose on_error='null'"
            )
            raise DataError(msg)


def _require_matrix(name: str, batch: pa.RecordBatch, values: Any) -> None:
    """Refuse arrays of numbers of different lengths: they are no tensor."""
    kind = batch.schema.field(0).type
    if not (pt.is_list(kind) and _is_number(kind.value_type)) or not batch.num_rows:
        return
    if len(getattr(values, "shape", ())) < 2:
        lengths = sorted(set(batch.column(0).value_lengths().to_pylist()))
        msg = (
            f"Column {name!r} has arrays of the lengths {lengths[:5]} in one batch, which make "
            "no tensor (rows, k). Make them equal in SQL, or give a function as `inputs` that "
            "pads them"
        )
        raise DataError(msg)


def _given(field: pa.Field) -> TensorSpec:
    """Return what a column is as a tensor of its own."""
    if pt.is_list(field.type):
        return TensorSpec(field.name, _dtype_of(field.type.value_type), (None, None))
    return TensorSpec(field.name, _dtype_of(field.type), (None,))


def _shape(spec: TensorSpec) -> tuple[int | None, ...]:
    return spec.shape or ()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind))


def _dtype_of(kind: pa.DataType) -> str | None:
    if _is_number(kind):
        return str(np.dtype(kind.to_pandas_dtype()))
    is_text = pt.is_string(kind) or pt.is_binary(kind) or pt.is_fixed_size_binary(kind)
    return "str" if is_text else None


def _fits_type(mine: TensorSpec, spec: TensorSpec) -> bool:
    if spec.dtype is None or mine.dtype == spec.dtype:
        return True
    if mine.dtype is None or "str" in (mine.dtype, spec.dtype):
        return False
    return bool(np.can_cast(mine.dtype, spec.dtype, "same_kind"))


def _fits_shape(mine: TensorSpec, spec: TensorSpec) -> bool:
    if spec.shape is None:
        return True
    given = _shape(mine)
    if len(spec.shape) == 2 and len(given) == 1:
        given = (*given, 1)  # a column of numbers is (rows, 1) where that is wanted
    if len(given) != len(spec.shape):
        return False
    sizes = list(zip(given, spec.shape, strict=True))[1:]
    return all(None in pair or pair[0] == pair[1] for pair in sizes)
