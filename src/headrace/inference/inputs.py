"""From the columns of a batch to what a model is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.types as pt

from headrace.errors import ConfigError, DataError
from headrace.inference.model import LoadedModel, TensorSpec
from headrace.role import to_numpy

__all__ = ["Call", "InputPlan", "Inputs", "LazyColumns", "require_inputs"]

Source: TypeAlias = str | list[str]
Inputs: TypeAlias = (
    Source
    | tuple[Source, ...]
    | Mapping[str, Source]
    | Callable[[Mapping[str, Any]], Any]
    | None
)
"""What a model gets of a batch.

| `inputs` | the model is called with |
|---|---|
| ``"x"`` | the column: (rows,), or (rows, k) of an ARRAY |
| ``["a", "b"]`` | these columns of numbers side by side: (rows, 2), float32 |
| a tuple of such | one argument for each |
| ``{"name": ...}`` of such | one argument for each, by its name |
| a function | what it makes of the columns: one argument, several in a tuple, or a mapping |
| None | columns that are named as the model's inputs are |
"""

Array: TypeAlias = npt.NDArray[Any]
_FLOAT32 = "float32"


@dataclass(frozen=True, slots=True)
class Call:
    """Arguments of one call of a model.

    Attributes:
        args: By position.
        named: By name.
    """

    args: tuple[Any, ...]
    named: Mapping[str, Any]


class LazyColumns(Mapping[str, Any]):
    """The columns of a batch, each converted when it is asked for."""

    def __init__(self, batch: pa.RecordBatch, model: LoadedModel) -> None:
        self._batch = batch
        self._model = model

    def __getitem__(self, name: str) -> Any:
        if name not in self._batch.schema.names:
            raise KeyError(name)
        return self._model.columns(self._batch.select([name]))[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batch.schema.names)

    def __len__(self) -> int:
        return len(self._batch.schema.names)


@dataclass(frozen=True, slots=True)
class _Part:
    """One argument: where it comes from, and what the model says of it."""

    source: Source
    spec: TensorSpec | None


class InputPlan:
    """Makes the arguments of every batch of one schema. One thread.

    Args:
        inputs: What the user has chosen.
        schema: Columns of the batches.
        model: Who is called; what it declares is compared with the columns.

    Raises:
        ConfigError: A column is missing or of a wrong type, or does not fit what the model
            declares; the text has both sides.
    """

    def __init__(self, inputs: Inputs, schema: pa.Schema, model: LoadedModel) -> None:
        self._model = model
        self._schema = schema
        if inputs is None and model.takes_columns:
            inputs = _all_columns
        self._function = inputs if callable(inputs) else None
        self._args: list[_Part] = []
        self._named: dict[str, _Part] = {}
        if self._function is None:
            assert not callable(inputs)
            self._match(inputs)
        for part in self._parts:
            self._check(part)
        self.columns = sorted({name for part in self._parts for name in _names(part.source)})

    @property
    def is_function(self) -> bool:
        """Whether a function of the user's makes the arguments."""
        return self._function is not None

    def make(self, batch: pa.RecordBatch) -> Call:
        """Return the arguments for the rows of `batch`."""
        if self._function is not None:
            return _as_call(self._function(LazyColumns(batch, self._model)))
        return Call(
            tuple(self._argument(part, batch) for part in self._args),
            {name: self._argument(part, batch) for name, part in self._named.items()},
        )

    def example(self, rows: int) -> pa.RecordBatch | None:
        """Return rows of zeros with the columns that the model gets, or None.

        None where nobody knows how long an ARRAY is, or what a function wants.
        """
        if self._function is not None:
            return None
        columns = []
        for name in self.columns:
            kind = self._schema.field(name).type
            if pt.is_list(kind):
                width = self._width_of(name)
                if width is None:
                    return None
                columns.append(pa.array([[0] * width] * rows, kind))
            elif _is_number(kind):
                columns.append(pa.array([0] * rows, pa.int8()).cast(kind))
            else:
                return None
        fields = [self._schema.field(name) for name in self.columns]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    @property
    def _parts(self) -> list[_Part]:
        return [*self._args, *self._named.values()]

    def _match(self, inputs: Source | tuple[Source, ...] | Mapping[str, Source] | None) -> None:
        specs = self._model.inputs
        if inputs is None:
            self._match_names(specs)
        elif isinstance(inputs, Mapping):
            by_name = {spec.name: spec for spec in specs or ()}
            wrong = set(inputs) ^ set(by_name) if specs is not None else set()
            if wrong:
                raise ConfigError(_differ("inputs names", inputs, specs))
            self._named = {name: _Part(s, by_name.get(name)) for name, s in inputs.items()}
        else:
            sources = inputs if isinstance(inputs, tuple) else (inputs,)
            if specs is not None and len(specs) != len(sources):
                raise ConfigError(_differ("inputs gives", map(str, sources), specs))
            known = specs or (None,) * len(sources)
            self._args = [_Part(s, spec) for s, spec in zip(sources, known, strict=True)]

    def _match_names(self, specs: tuple[TensorSpec, ...] | None) -> None:
        names = self._schema.names
        if specs is None or any(spec.name not in names for spec in specs):
            if len(names) == 1 and (specs is None or len(specs) == 1):
                self._args = [_Part(names[0], specs[0] if specs else None)]
                return
            if specs is None:
                msg = (
                    f"The model does not name its inputs, and the rows have the columns "
                    f"{', '.join(names)}: say with `inputs` which go in, for example "
                    f"inputs={names[:2]!r} for a matrix (rows, 2)"
                )
                raise ConfigError(msg)
            raise ConfigError(_differ("the rows have the columns", names, specs))
        self._named = {spec.name: _Part(spec.name, spec) for spec in specs}

    def _check(self, part: _Part) -> None:
        for name in _names(part.source):
            if name not in self._schema.names:
                msg = (
                    f"inputs: there is no column {name!r}; the rows have "
                    f"{', '.join(self._schema.names)}"
                )
                raise ConfigError(msg)
            kind = self._schema.field(name).type
            if isinstance(part.source, list) and not _is_number(kind):
                msg = (
                    f"inputs: column {name!r} ({kind}) is among {part.source}, which become "
                    "one matrix, and is no number. Give it as an argument of its own"
                )
                raise ConfigError(msg)
        spec = part.spec
        if spec is None:
            return
        mine = self._given(part)
        if not (_fits_type(mine, spec) and _fits_shape(mine, spec)):
            msg = f"The model takes {spec}, and inputs={part.source!r} gives {mine}"
            raise ConfigError(msg)

    def _given(self, part: _Part) -> TensorSpec:
        """Return what an argument will be."""
        source = part.source
        name = source if isinstance(source, str) else ", ".join(source)
        if isinstance(source, list):
            declared = part.spec.dtype if part.spec and part.spec.dtype else _FLOAT32
            return TensorSpec(name, declared, (None, len(source)))
        kind = self._schema.field(source).type
        shape: tuple[int | None, ...] = (None,)
        if pt.is_list(kind):
            kind, shape = kind.value_type, (None, None)
        return TensorSpec(name, _dtype_of(kind), shape)

    def _argument(self, part: _Part, batch: pa.RecordBatch) -> Any:
        dtype = part.spec.dtype if part.spec is not None else None
        if isinstance(part.source, list):
            matrix = stacked(batch, part.source, np.dtype(dtype or _FLOAT32))
            return self._model.tensor(matrix)
        alone = batch.select([part.source])
        kind = alone.schema.field(0).type
        wants_column = part.spec is not None and part.spec.shape is not None
        wants_column = wants_column and len(part.spec.shape) == 2 and not pt.is_list(kind)  # type: ignore[union-attr,arg-type]
        own = _dtype_of(kind.value_type if pt.is_list(kind) else kind)
        if dtype not in (None, "str", own) or wants_column:
            array = to_numpy(alone)[part.source]
            array = array.astype(dtype if dtype not in (None, "str") else array.dtype)
            return self._model.tensor(array[:, None] if wants_column else array)
        return self._model.columns(alone)[part.source]

    def _width_of(self, name: str) -> int | None:
        for part in self._parts:
            if part.source == name and part.spec is not None and part.spec.shape is not None:
                return part.spec.shape[-1]
        return None


def require_inputs(inputs: object) -> None:
    """Raise a `ConfigError` unless `inputs` is of one of the forms of `Inputs`."""
    if inputs is None or callable(inputs):
        return
    sources: Iterable[object] = [inputs]
    if isinstance(inputs, Mapping):
        sources = inputs.values()
    elif isinstance(inputs, tuple):
        sources = inputs
    for source in sources:
        is_stack = isinstance(source, list) and source and all(map(_is_text, source))
        if not (is_stack or _is_text(source)):
            msg = (
                f"inputs={inputs!r}: {source!r} must be the name of a column, or a list of "
                "names whose columns become one matrix"
            )
            raise ConfigError(msg)


def stacked(batch: pa.RecordBatch, names: Sequence[str], dtype: np.dtype[Any]) -> Array:
    """Return columns of numbers side by side, (rows, columns), row after row."""
    matrix = np.empty((batch.num_rows, len(names)), dtype)
    for place, name in enumerate(names):
        column = batch.column(name)
        if column.null_count:
            msg = f"Column {name!r} has {column.null_count} NULL, which no model can take"
            raise DataError(msg)
        matrix[:, place] = column.to_numpy(zero_copy_only=not pt.is_boolean(column.type))
    return matrix


def _all_columns(columns: Mapping[str, Any]) -> Any:
    return (columns,)


def _as_call(made: Any) -> Call:
    if isinstance(made, Mapping):
        return Call((), made)
    return Call(made if isinstance(made, tuple) else (made,), {})


def _differ(what: str, ours: Iterable[str], specs: Sequence[TensorSpec] | None) -> str:
    theirs = "; ".join(map(str, specs or ()))
    return f"The model takes ({theirs}), and {what} ({'; '.join(ours)}): say `inputs`"


def _names(source: Source) -> Sequence[str]:
    return [source] if isinstance(source, str) else source


def _is_text(value: object) -> bool:
    return isinstance(value, str)


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
    if spec.shape is None or mine.shape is None:
        return True
    given = mine.shape
    if len(spec.shape) == 2 and len(given) == 1:
        given = (*given, 1)  # a column of numbers is (rows, 1) where that is wanted
    if len(given) != len(spec.shape):
        return False
    sizes = list(zip(given, spec.shape, strict=True))[1:]
    return all(None in pair or pair[0] == pair[1] for pair in sizes)
