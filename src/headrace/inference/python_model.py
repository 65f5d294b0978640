"""A model that is any Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy.typing as npt
import pyarrow as pa

from headrace.errors import ConfigError
from headrace.inference.model import LoadedModel, TensorSpec
from headrace.role import to_numpy

__all__ = ["PythonModel"]


@dataclass(frozen=True, slots=True)
class PythonModel:
    """Scores with what `factory` returns: for any library, or for rules without a model.

    Attributes:
        factory: Called once in each worker; returns a function that is called with NumPy
            arrays, as `inputs` says, and returns arrays. Without `inputs` it is called with
            one mapping of all columns. Travels by cloudpickle.

    Example:
        >>> PythonModel(lambda: lambda columns: columns["distance"] * 2.0)  # doctest: +SKIP
    """

    factory: Callable[[], Callable[..., Any]]

    def __post_init__(self) -> None:
        factory: object = self.factory
        if not callable(factory):
            msg = f"PythonModel({factory!r}) takes a function that returns the model"
            raise ConfigError(msg)

    def load(self, threads: int | None) -> LoadedModel:  # noqa: ARG002 - NumPy has none to set
        """Call the factory."""
        function: object = self.factory()
        if not callable(function):
            msg = (
                f"PythonModel: the factory returned {function!r}, which cannot be called; it "
                "must return the function that scores a batch"
            )
            raise ConfigError(msg)
        return _Loaded(function)


class _Loaded:
    inputs: tuple[TensorSpec, ...] | None = None
    is_ordered = True
    takes_columns = True
    can_try = False

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def columns(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        return to_numpy(batch)

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        return array

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        return self._function(*args, **named)
