"""What of the INPUT columns goes into a model, as SQL says it, or does not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.types as pt

from headrace.errors import ConfigError
from headrace.inference import Inputs, LoadedModel

__all__ = ["default_inputs", "parse_inputs"]


def parse_inputs(text: str | None, columns: Sequence[str]) -> Inputs:
    """Return the `Inputs` of an option: JSON, in which a list with a list in it is a tuple.

    Args:
        text: The option; None without it.
        columns: Names of the INPUT columns.

    Raises:
        ConfigError: It is no JSON, or names another column.
    """
    if text is None:
        return None
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as exc:
        msg = f"'inputs' = '{text}' must be JSON, for example [\"a\", \"b\"]: {exc}"
        raise ConfigError(msg) from exc
    if isinstance(value, list) and any(isinstance(each, list) for each in value):
        value = tuple(value)
    unknown = sorted({name for name in _names(value) if name not in columns})
    if unknown:
        there = f"INPUT has {', '.join(columns)}"
        msg = f"'inputs': there is no column {', '.join(unknown)}; {there}"
        raise ConfigError(msg)
    inputs: Inputs = value
    return inputs


def default_inputs(model: LoadedModel, schema: pa.Schema) -> Inputs:
    """Return what goes into a model of which SQL does not say it.

    By name where the model takes several, or one that is named as a column; all columns, where
    it wants them; else all of them side by side, as one matrix (rows, columns).
    """
    specs = model.inputs
    names = [spec.name for spec in specs or ()]
    if model.takes_columns or len(names) > 1 or (names and names[0] in schema.names):
        return None
    is_flat = specs is not None and specs[0].shape is not None and len(specs[0].shape) == 1
    if len(schema) > 1 or (_is_number(schema.field(0).type) and not is_flat):
        return list(schema.names)
    return str(schema.names[0])


def _names(value: Any) -> list[str]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        return [name for each in value for name in _names(each)]
    return [value] if isinstance(value, str) else []


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind))
