"""Scores the rows of a batch, and says of each that cannot be scored why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import ConfigError, DataError, HeadraceError
from headrace.inference.input_plan import Call, InputPlan, LazyColumns
from headrace.inference.model import LoadedModel, shape_of
from headrace.inference.nulls import null_rows
from headrace.inference.outputs import OutputPlan
from headrace.inference.settings import ScoringSettings
from headrace.inference.version import ModelVersion

__all__ = ["Scorer"]

_TRIED_ROWS = 2
_REASON_CHARS = 300


class Scorer:
    """Makes a batch of the output of each batch of the input.

    Thread model: one thread at a time, except that the calls which `begin` returns may be made
    on another, one at a time.

    Args:
        model: Who scores.
        settings: How.
        input_schema: Columns that come in.
        output_schema: Columns that go out: the kept ones, the outputs, the column of errors,
            that of versions.
        version: What `model` was loaded from; None where it has no files.
        note: Called by `end` with the reason of each row that could not be scored, if there
            are such rows.

    Attributes:
        version: As given.

    Raises:
        ConfigError: The model does not fit the columns; the text has both sides.
    """

    def __init__(
        self,
        model: LoadedModel,
        settings: ScoringSettings,
        input_schema: pa.Schema,
        output_schema: pa.Schema,
        version: ModelVersion | None = None,
        note: Callable[[list[str]], None] = lambda _: None,
    ) -> None:
        self._model = model
        self.version = version
        self._note = note
        self._settings = settings
        self._schema = output_schema
        self._inputs = InputPlan(settings.inputs, input_schema, model)
        self._fields = [output_schema.field(name) for name in settings.outputs]
        self._outputs = OutputPlan(self._fields)
        if settings.on_error == "null":
            _require_nullable(self._fields)
        if model.can_try:
            self._try()

    def begin(self, batch: pa.RecordBatch) -> Callable[[], Any]:
        """Return the call that scores `batch`; another thread may make it.

        Raises:
            DataError: A row has a NULL that the model cannot take; with `on_error="fail"`.
        """
        if self._settings.on_error != "fail":
            return partial(self._score_what_can_be, batch)
        _require_values(batch, self._inputs.unguarded)
        try:
            call = self._inputs.make(batch)
        except pa.ArrowTypeError:
            _require_values(batch, self._inputs.columns)
            raise
        return partial(self._model, call.args, call.named)

    def end(self, batch: pa.RecordBatch, returned: Any) -> pa.RecordBatch:
        """Return the rows of `batch` with their scores, in order.

        Args:
            batch: What `begin` was given.
            returned: What its call returned.

        Raises:
            DataError: The model returned something else than was declared; with
                `on_error="fail"`.
        """
        if self._settings.on_error == "fail":
            columns = self._columns_of(returned, batch)
            reasons = None
        else:
            columns, reasons = returned
        told = [reason for reason in reasons or () if reason is not None]
        if told:  # none where only the whole batch was too much for the model
            self._note(told)
        made = {name: batch.column(name) for name in self._settings.kept}
        made.update(zip(self._settings.outputs, columns, strict=True))
        if self._settings.error_column is not None:
            texts = pa.array(reasons or [None] * batch.num_rows, pa.string())
            made[self._settings.error_column] = texts
        if self._settings.version_column is not None:
            made[self._settings.version_column] = self._versions(batch.num_rows)
        arrays = [made[name] for name in self._schema.names]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _versions(self, rows: int) -> pa.Array:
        assert self._settings.version_column is not None
        changed_ms = None if self.version is None else self.version.changed_ms
        kind = self._schema.field(self._settings.version_column).type
        return pa.repeat(pa.scalar(changed_ms, pa.timestamp("ms")), rows).cast(kind)

    def _call(self, batch: pa.RecordBatch) -> list[pa.Array]:
        call = self._inputs.make(batch)
        return self._columns_of(self._model(call.args, call.named), batch)

    def _columns_of(self, returned: Any, batch: pa.RecordBatch) -> list[pa.Array]:
        if self._settings.postprocess is not None:
            columns = LazyColumns(batch, self._model)
            returned = self._settings.postprocess(returned, columns)
        return self._outputs.make(returned, batch.num_rows)

    def _score_what_can_be(
        self, batch: pa.RecordBatch
    ) -> tuple[list[pa.Array], list[str | None] | None]:
        reasons: list[str | None] = [None] * batch.num_rows
        for name in self._inputs.columns:
            column = batch.column(name)
            for row in null_rows(column):
                what = "has a NULL element" if column[int(row)].is_valid else "is NULL"
                reasons[row] = reasons[row] or f"{name} {what}"
        whole = np.array([row for row, reason in enumerate(reasons) if reason is None])
        pieces: list[tuple[np.ndarray[Any, Any], list[pa.Array]]] = []
        if len(whole) == batch.num_rows:
            self._halve(batch, whole, pieces, reasons)
        elif len(whole):
            self._halve(batch.take(pa.array(whole)), whole, pieces, reasons)
        if len(pieces) == 1 and len(pieces[0][0]) == batch.num_rows:
            return pieces[0][1], None
        return self._spread(pieces, batch.num_rows), reasons

    def _halve(
        self,
        batch: pa.RecordBatch,
        rows: np.ndarray[Any, Any],
        pieces: list[tuple[np.ndarray[Any, Any], list[pa.Array]]],
        reasons: list[str | None],
    ) -> None:
        """Score `batch`, whose rows are `rows` of the whole; if that fails, each half of it."""
        try:
            columns = self._call(batch)
        except (MemoryError, ConfigError):
            raise  # nothing that a row could be blamed for
        except Exception as exc:  # noqa: BLE001 - a model may raise anything
            if len(rows) == 1:
                reasons[rows[0]] = _reason(exc)
                return
        else:
            pieces.append((rows, columns))
            return
        # Behind the handler: its traceback keeps all that the failed call had made.
        middle = len(rows) // 2
        self._halve(batch.slice(0, middle), rows[:middle], pieces, reasons)
        self._halve(batch.slice(middle), rows[middle:], pieces, reasons)

    def _spread(
        self, pieces: list[tuple[np.ndarray[Any, Any], list[pa.Array]]], rows: int
    ) -> list[pa.Array]:
        """Return columns of `rows` rows, NULL in those that no piece has."""
        places = np.full(rows, -1, np.int64)
        scored = 0
        for of_piece, _ in pieces:
            places[of_piece] = np.arange(scored, scored + len(of_piece))
            scored += len(of_piece)
        indices = pa.array(places, mask=places < 0)
        if not scored:
            return [pa.nulls(rows, field.type) for field in self._fields]
        return [
            pc.take(pa.concat_arrays([columns[n] for _, columns in pieces]), indices)
            for n in range(len(self._fields))
        ]

    def _try(self) -> None:
        """Call the model before any row comes, so that what does not fit is told at once."""
        example = self._inputs.example(_TRIED_ROWS)
        if example is None:
            return
        call = self._inputs.make(example)
        try:
            returned = self._model(call.args, call.named)
        except Exception as exc:
            msg = (
                f"The model cannot score the rows: called with {_told(call)} it raised "
                f"{type(exc).__name__}: {exc}"
            )
            raise ConfigError(msg) from exc
        if self._settings.postprocess is None:
            try:
                self._outputs.make(returned, _TRIED_ROWS)
            except (ConfigError, DataError) as exc:
                msg = f"The model was tried on {_TRIED_ROWS} rows of zeros. {exc}"
                raise ConfigError(msg) from exc


def _require_values(batch: pa.RecordBatch, names: Iterable[str]) -> None:
    for name in names:
        nulls = len(null_rows(batch.column(name)))
        if nulls:
            msg = (
                f"Column {name!r} has {nulls} NULL in {batch.num_rows} rows, and goes into "
                f"the model, which cannot take NULL. Say what it means in SQL, "
                f"COALESCE({name}, 0) or WHERE {name} IS NOT NULL; or choose "
                "on_error='null'"
            )
            raise DataError(msg)


def _require_nullable(fields: list[pa.Field]) -> None:
    strict = [field.name for field in fields if not field.nullable]
    if strict:
        msg = (
            f"on_error='null' makes outputs NULL, and {', '.join(strict)} of `outputs` is "
            "declared NOT NULL. Declare it nullable, or choose on_error='fail'"
        )
        raise ConfigError(msg)


def _told(call: Call) -> str:
    args = [shape_of(each) for each in call.args]
    return ", ".join(
        [*args, *(f"{name}={shape_of(each)}" for name, each in call.named.items())]
    )


def _reason(exc: Exception) -> str:
    text = str(exc)
    if isinstance(exc, HeadraceError):
        return text[:_REASON_CHARS]
    return f"{type(exc).__name__}: {text}"[:_REASON_CHARS]
