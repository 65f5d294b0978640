"""From the columns of a batch to what a model is trained on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from headrace.errors import DataError
from headrace.inference import Argument, Call, InputPlan, Inputs, LoadedModel, Source, null_rows

__all__ = ["Example", "ExamplePlan"]


@dataclass(frozen=True, slots=True)
class Example:
    """A batch, ready for a step.

    Attributes:
        call: What the model is called with.
        labels: What it should say: (rows,), or (rows, k) of an ARRAY or of several columns.
        rows: How many.
    """

    call: Call
    labels: Any
    rows: int


class ExamplePlan:
    """Makes an example of every batch of one schema, by the rules of `predict`. One thread.

    Args:
        features: What of a row goes into the model.
        label: Column of what it should say, or several columns of numbers.
        schema: Columns of the batches.
        model: Who is trained: what it declares is compared with the columns.

    Raises:
        ConfigError: A column is missing or of a wrong type.
    """

    def __init__(
        self, features: Inputs, label: Source, schema: pa.Schema, model: LoadedModel
    ) -> None:
        labels = [label] if isinstance(label, str) else label
        is_named = features is not None and not callable(features)
        # What picks its columns by itself must not find the answer among them.
        visible = schema if is_named else pa.schema([f for f in schema if f.name not in labels])
        self._visible = visible.names
        self._model = model
        self._inputs = InputPlan(features, visible, model)
        self._label = Argument(label, None, schema)
        self._needed = sorted({*self._inputs.columns, *labels})

    def make(self, batch: pa.RecordBatch) -> Example:
        """Return the example.

        Raises:
            DataError: A feature or label is NULL, or the values do not fit.
        """
        for name in self._needed:
            nulls = len(null_rows(batch.column(name)))
            if nulls:
                msg = (
                    f"Column {name!r} has {nulls} NULL in {batch.num_rows} rows, and nothing "
                    f"can be learned from it. Say in SQL what it means, COALESCE({name}, 0), "
                    f"or leave such rows out, WHERE {name} IS NOT NULL"
                )
                raise DataError(msg)
        call = self._inputs.make(batch.select(self._visible))
        return Example(call, self._label.make(batch, self._model), batch.num_rows)
