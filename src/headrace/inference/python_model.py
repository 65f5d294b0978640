"""A model that is any Python function."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pyarrow as pa
from threadpoolctl import threadpool_limits

from headrace.errors import ConfigError
from headrace.inference.model import LoadedModel, TensorSpec, absolute_path
from headrace.inference.own_memory import in_own_memory
from headrace.role import to_numpy

__all__ = ["PythonModel"]


@dataclass(frozen=True, slots=True)
class PythonModel:
    """Scores with what `factory` returns: for any library, or for rules without a model.

    Attributes:
        factory: Called once in each worker, and once for each new version; returns a function
            that is called with NumPy arrays, as `inputs` says, and returns arrays (rows,) or
            (rows, k). Without `inputs` it is called with one mapping of all columns. The
            function is called on one thread, which is not that of the factory, while functions
            given as `inputs` and `postprocess` run on another for the batches around: what they
            share needs a lock. What it returns is copied at once, so it may be memory that the
            next call fills again. Travels by cloudpickle.
        path: File or directory of the model. With one, the factory is called with its `Path`
            on the worker's host, else without an argument. A relative one is taken from here.

    Raises:
        ConfigError: `factory` cannot be called, or `path` is a local URI with a host.

    Example:
        >>> PythonModel(lambda: lambda columns: columns["distance"] * 2.0)  # doctest: +SKIP
    """

    factory: Callable[..., Callable[..., Any]]
    path: str | Path | None = None

    def __post_init__(self) -> None:
        if self.path is not None:
            object.__setattr__(self, "path", absolute_path(self.path))
        factory: object = self.factory
        if not callable(factory):
            msg = f"PythonModel({factory!r}) takes a function that returns the model"
            raise ConfigError(msg)

    def load(self, threads: int | None, copy: Path | None = None) -> LoadedModel:
        """Call the factory; see `Model.load`.

        Raises:
            ConfigError: There is nothing at the path, or the factory returned no function.
        """
        function: object = self.factory(*self._arguments(copy))
        if not callable(function):
            msg = (
                f"PythonModel: the factory returned {function!r}, which cannot be called; it "
                "must return the function that scores a batch"
            )
            raise ConfigError(msg)
        return _Loaded(function, threads)

    def _arguments(self, copy: Path | None) -> tuple[Path, ...]:
        if self.path is None:
            return ()
        path = copy or Path(self.path)
        if not path.exists():
            msg = f"There is no model at {path} on this host"
            raise ConfigError(msg)
        return (path,)


class _Loaded:
    inputs: tuple[TensorSpec, ...] | None = None
    is_ordered = True
    takes_columns = True
    can_try = False

    def __init__(self, function: Callable[..., Any], threads: int | None) -> None:
        self._function = function
        self._threads = threads

    def columns(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        return to_numpy(batch)

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        return array

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        if self._threads is not None:
            # On the thread that calls, for which alone OpenMP takes the number, and when the
            # factory has loaded its libraries.
            threadpool_limits(self._threads)
            self._threads = None
        return in_own_memory(self._function(*args, **named))
