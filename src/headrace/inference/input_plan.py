"""From the columns of a batch to what a model is called with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.errors import ConfigError
from headrace.inference.argument import Argument
from headrace.inference.inputs import Inputs, Source
from headrace.inference.model import LoadedModel, TensorSpec

__all__ = ["Call", "InputPlan", "LazyColumns"]


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


class InputPlan:
    """Makes the arguments of every batch of one schema. One thread.

    Args:
        inputs: What the user has chosen.
        schema: Columns of the batches.
        model: Who is called; what it declares is compared with the columns.

    Attributes:
        columns: Which of the columns go into the model; none if a function takes them.
        unguarded: Those of them whose NULL is not noticed by `make`.

    Raises:
        ConfigError: A column is missing or of a wrong type, or does not fit what the model
            declares; the text has both sides.
    """

    def __init__(self, inputs: Inputs, schema: pa.Schema, model: LoadedModel) -> None:
        self._model = model
        self._schema = schema
        self._function: Callable[[Mapping[str, Any]], Any] | None = None
        self._args: list[Argument] = []
        self._named: dict[str, Argument] = {}
        if inputs is None and model.takes_columns:
            self._function = _all_columns
        elif callable(inputs):
            self._function = inputs
        else:
            self._match(inputs)
        arguments = [*self._args, *self._named.values()]
        self._argument_of = {name: each for each in arguments for name in each.names}
        self.columns = sorted(self._argument_of)
        self.unguarded = [
            name for name in self.columns if not self._argument_of[name].refuses_null
        ]

    def make(self, batch: pa.RecordBatch) -> Call:
        """Return the arguments for the rows of `batch`.

        Raises:
            ConfigError: A function has made others than the model takes.
            DataError: The values do not fit.
            pa.ArrowTypeError: A column has NULL.
        """
        if self._function is not None:
            call = _as_call(self._function(LazyColumns(batch, self._model)))
            self._require_fit(call)
            return call
        return Call(
            tuple(each.make(batch, self._model) for each in self._args),
            {name: each.make(batch, self._model) for name, each in self._named.items()},
        )

    def example(self, rows: int) -> pa.RecordBatch | None:
        """Return rows of zeros with the columns that the model gets, or None.

        None where nobody knows how they look: what a function wants, text, an ARRAY whose
        length the model does not say.
        """
        if self._function is not None:
            return None
        columns = []
        for name, argument in self._argument_of.items():
            zeros = argument.zeros(self._schema.field(name).type, rows)
            if zeros is None:
                return None
            columns.append(zeros)
        fields = [self._schema.field(name) for name in self._argument_of]
        return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))

    def _match(self, inputs: Source | tuple[Source, ...] | Mapping[str, Source] | None) -> None:
        specs = self._model.inputs
        if inputs is None:
            self._match_names(specs)
        elif isinstance(inputs, Mapping):
            by_name = {spec.name: spec for spec in specs or ()}
            if specs is not None and set(inputs) != set(by_name):
                raise ConfigError(_differ("inputs names", inputs, specs))
            self._named = {
                name: self._argument(source, by_name.get(name))
                for name, source in inputs.items()
            }
        else:
            sources = inputs if isinstance(inputs, tuple) else (inputs,)
            self._require_order(len(sources))
            if specs is not None and len(specs) != len(sources):
                raise ConfigError(_differ("inputs gives", map(str, sources), specs))
            known = specs or (None,) * len(sources)
            pairs = zip(sources, known, strict=True)
            self._args = [self._argument(source, spec) for source, spec in pairs]

    def _match_names(self, specs: tuple[TensorSpec, ...] | None) -> None:
        names = self._schema.names
        if specs is not None and all(spec.name in names for spec in specs):
            self._named = {spec.name: self._argument(spec.name, spec) for spec in specs}
        elif len(names) == 1 and (specs is None or len(specs) == 1):
            self._args = [self._argument(names[0], specs[0] if specs else None)]
        elif specs is not None:
            raise ConfigError(_differ("the rows have the columns", names, specs))
        else:
            msg = (
                f"The model does not name its inputs, and the rows have the columns "
                f"{', '.join(names)}: say with `inputs` which go in, for example "
                f"inputs={names[:2]!r} for a matrix (rows, 2)"
            )
            raise ConfigError(msg)

    def _argument(self, source: Source, spec: TensorSpec | None) -> Argument:
        return Argument(source, spec, self._schema)

    def _require_order(self, arguments: int) -> None:
        specs = self._model.inputs
        if arguments > 1 and not self._model.is_ordered and specs is not None:
            names = ", ".join(spec.name for spec in specs)
            msg = (
                f"The model knows its inputs by name only ({names}): give `inputs` as a "
                "mapping of these names, not by position"
            )
            raise ConfigError(msg)

    def _require_fit(self, call: Call) -> None:
        """Compare what a function has made with the names that the model declares."""
        specs = self._model.inputs
        if specs is None:
            return
        self._require_order(len(call.args))
        names = [spec.name for spec in specs]
        if {*names[: len(call.args)], *call.named} != set(names) or len(call.args) > len(names):
            given = [f"{len(call.args)} by position", *call.named]
            raise ConfigError(_differ("the function of `inputs` gives", given, specs))


def _all_columns(columns: Mapping[str, Any]) -> Any:
    return (columns,)


def _as_call(made: Any) -> Call:
    if isinstance(made, Mapping):
        return Call((), made)
    return Call(made if isinstance(made, tuple) else (made,), {})


def _differ(what: str, ours: Iterable[str], specs: Sequence[TensorSpec]) -> str:
    theirs = "; ".join(map(str, specs))
    return f"The model takes ({theirs}), and {what} ({'; '.join(ours)}): say `inputs`"
