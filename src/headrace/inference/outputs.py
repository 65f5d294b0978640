"""From what a model returned to columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from headrace.errors import ConfigError
from headrace.inference.model import shape_of
from headrace.role import to_columns

__all__ = ["OutputPlan"]


class OutputPlan:
    """Makes the output columns of every batch. One thread.

    Args:
        fields: The columns, in order.
    """

    def __init__(self, fields: list[pa.Field]) -> None:
        self._schema = pa.schema(fields)

    def make(self, returned: Any, rows: int) -> list[pa.Array]:
        """Return the columns.

        Args:
            returned: A tensor, array or list for one column; several in order, in a tuple or
                as a list of tensors; or a mapping with the columns' names. (rows,) and
                (rows, 1) become a column of numbers, (rows, k) one of arrays.
            rows: How many the model was given.

        Raises:
            ConfigError: It is something else, or has another number of rows: so it would be
                for every row.
            DataError: A value does not fit the declared type.
        """
        named = self._named(returned)
        for name, values in named.items():
            if _length(values) != rows:
                msg = (
                    f"Output {name!r} of the model is {shape_of(values)} for {rows} rows: its "
                    "first dimension must be the rows"
                )
                raise ConfigError(msg)
        flat = {name: self._flat(name, values) for name, values in named.items()}
        return to_columns(flat, self._schema)

    def _named(self, returned: Any) -> Mapping[str, Any]:
        names = self._schema.names
        if isinstance(returned, Mapping):
            if len(names) == 1 and len(returned) == 1:
                return dict(zip(names, returned.values(), strict=True))
            missing = [name for name in names if name not in returned]
            if missing:
                msg = (
                    f"The model returns the outputs {', '.join(map(str, returned))}, and "
                    f"{', '.join(missing)} of `outputs` are not among them"
                )
                raise ConfigError(msg)
            return {name: returned[name] for name in names}
        several = list(returned) if _is_several(returned) else [returned]
        if len(several) != len(names):
            told = ", ".join(map(shape_of, several))
            msg = (
                f"The model returns {len(several)} outputs ({told}), and `outputs` declares "
                f"{len(names)} ({', '.join(names)}). Declare one column for each, an ARRAY for "
                "(rows, k), or take it apart with `postprocess`"
            )
            raise ConfigError(msg)
        return dict(zip(names, several, strict=True))

    def _flat(self, name: str, values: Any) -> Any:
        shape: tuple[int, ...] = tuple(getattr(values, "shape", ()))
        is_list = pa.types.is_list(self._schema.field(name).type)
        return values[:, 0] if len(shape) == 2 and shape[1] == 1 and not is_list else values


def _is_several(returned: Any) -> bool:
    """Whether it is several outputs; a plain list is the values of one."""
    if isinstance(returned, tuple):
        return True
    is_list = isinstance(returned, list) and bool(returned)
    return is_list and all(hasattr(each, "shape") and each.shape for each in returned)


def _length(values: Any) -> int | None:
    """Return the first dimension; None where there is none."""
    if hasattr(values, "shape"):
        return values.shape[0] if len(values.shape) else None
    is_text = isinstance(values, str | bytes)
    return len(values) if hasattr(values, "__len__") and not is_text else None
