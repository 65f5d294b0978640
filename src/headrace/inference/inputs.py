"""What of the columns goes into a model: the forms in which a user says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from headrace.errors import ConfigError

__all__ = ["Inputs", "Source", "require_inputs"]

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


def require_inputs(inputs: object) -> None:
    """Raise a `ConfigError` unless `inputs` is of one of the forms of `Inputs`."""
    if inputs is None or callable(inputs):
        return
    sources: Iterable[object] = [inputs]
    if isinstance(inputs, Mapping):
        sources = inputs.values()
    elif isinstance(inputs, tuple):
        sources = inputs
    if inputs in ((), {}):
        msg = f"inputs={inputs!r} names no column; leave it out to match columns by name"
        raise ConfigError(msg)
    for source in sources:
        is_stack = isinstance(source, list) and source and all(map(_is_text, source))
        if not (is_stack or _is_text(source)):
            msg = (
                f"inputs={inputs!r}: {source!r} must be the name of a column, or a list of "
                "names whose columns become one matrix"
            )
            raise ConfigError(msg)


def _is_text(value: object) -> bool:
    return isinstance(value, str)
