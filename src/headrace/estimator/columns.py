"""Which columns of a table a training needs, and whether they can be what they are to be."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.errors import ConfigError, PlanError
from headrace.inference import Inputs, Source, require_inputs

__all__ = ["needed_columns", "require_label"]

_NUMBERS = ("TINYINT", "SMALLINT", "INT", "BIGINT", "FLOAT", "DOUBLE", "BOOLEAN")
_ARRAYS = tuple(f"ARRAY<{each}>" for each in _NUMBERS)


def require_label(label: object) -> None:
    """Raise a `ConfigError` unless `label` is a column's name, or a list of such."""
    names = label if isinstance(label, list) else [label]
    if not names or not all(isinstance(each, str) for each in names):
        msg = f"label={label!r} must be the name of a column, or a list of names"
        raise ConfigError(msg)


def needed_columns(features: Inputs, label: Source, types: Mapping[str, str]) -> list[str]:
    """Return the columns of a table that a training needs, in the order of the table.

    All of them where `features` chooses by itself: a function, or the model's own names.

    Args:
        features: What of a row goes into the model.
        label: What the model should say.
        types: The columns of the table, with Flink's names of their types.

    Raises:
        PlanError: A column is missing, or is no number where it must be one.
    """
    require_inputs(features)
    require_label(label)
    for parameter, source in [
        *(("features", each) for each in _sources(features)),
        ("label", label),
    ]:
        for name in _names(source):
            _require(parameter, name, types, is_stacked=isinstance(source, list))
    if not isinstance(label, list) and types[label] not in (*_NUMBERS, *_ARRAYS):
        msg = f"label: column {label!r} is {types[label]}, which is no number. CAST it in SQL"
        raise PlanError(msg)
    if features is None or callable(features):
        return list(types)
    needed = {*_names(label), *(name for each in _sources(features) for name in _names(each))}
    return [name for name in types if name in needed]


def _require(parameter: str, name: str, types: Mapping[str, str], *, is_stacked: bool) -> None:
    if name not in types:
        msg = f"{parameter}: there is no column {name!r}; the table has {', '.join(types)}"
        raise PlanError(msg)
    if is_stacked and types[name] not in _NUMBERS:
        msg = (
            f"{parameter}: column {name!r} is {types[name]}, and columns in a list become one "
            "matrix of numbers. CAST it in SQL to DOUBLE or INT, or name it alone"
        )
        raise PlanError(msg)


def _sources(features: Inputs) -> list[Source]:
    if features is None or callable(features):
        return []
    if isinstance(features, Mapping):
        return list(features.values())
    return list(features) if isinstance(features, tuple) else [features]


def _names(source: Source) -> list[str]:
    return [source] if isinstance(source, str) else source
