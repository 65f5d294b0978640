"""What scoring knows of a model, whatever its framework."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit
from urllib.request import url2pathname

import numpy.typing as npt
import pyarrow as pa

from headrace.errors import ConfigError

__all__ = ["LoadedModel", "Model", "TensorSpec", "absolute_path", "is_uri", "shape_of"]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input as a model declares it.

    Attributes:
        name: By which the model is given it.
        dtype: NumPy's name of its type, "str" for text and bytes; None: the model does not say.
        shape: Sizes, the rows first, None where any will do; None: the model does not say.
    """

    name: str
    dtype: str | None = None
    shape: tuple[int | None, ...] | None = None

    def __str__(self) -> str:
        shape = "any shape" if self.shape is None else _shape_text(self.shape)
        return f"{self.name}: {self.dtype or 'any type'} {shape}"


class LoadedModel(Protocol):
    """A model in memory.

    Thread model: calls come one after the other, the trial before the first row from the thread
    that loads, all others from one thread; `columns` and `tensor` from the main thread, perhaps
    at the same time.
    """

    @property
    def inputs(self) -> tuple[TensorSpec, ...] | None:
        """What the model takes, in order; None: it does not say."""

    @property
    def is_ordered(self) -> bool:
        """Whether the order of `inputs` is that in which the model's author named them."""

    @property
    def takes_columns(self) -> bool:
        """Whether without `inputs` it is called with one mapping of all columns."""

    @property
    def can_try(self) -> bool:
        """Whether a call on rows of zeros does no harm."""

    def columns(self, batch: pa.RecordBatch) -> Mapping[str, Any]:
        """Return the columns as the framework's tensors, or as NumPy where it has no type."""

    def tensor(self, array: npt.NDArray[Any]) -> Any:
        """Return an array, which nobody else has, as a tensor."""

    def __call__(self, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Score one batch.

        Args:
            args: Tensors by position, their first dimension the rows.
            named: Tensors by name.

        Returns:
            A tensor, several in a tuple, or a mapping of names to them; the first dimension is
            the rows. It stays as it is when the next batch is scored.
        """


class Model(Protocol):
    """Where a model is and how it is read: a frozen value, which travels to the process."""

    @property
    def path(self) -> str | Path | None:
        """Where its file or directory is: absolute, or a URI; None: it has none."""

    def load(self, threads: int | None, copy: Path | None = None) -> LoadedModel:
        """Read the model. May take long; called before any row, and for each new version.

        Args:
            threads: With how many the process computes; None leaves it as it is.
            copy: Where to read it: what a link at `path` leads to, or where a copy of it is on
                this host. None: at `path`.

        Returns:
            The model in memory.

        Raises:
            ConfigError: There is no such model, or it is of another kind.
        """


def absolute_path(path: str | Path) -> str:
    """Return where a model is for a worker, whose working directory is another one.

    A URI stays one, unless it is that of a local file.

    Raises:
        ConfigError: It is a local URI with a host.
    """
    parts = urlsplit(str(path))
    if not is_uri(path):
        return str(Path(path).absolute())
    if parts.scheme != "file":
        return str(path)
    if parts.netloc not in ("", "localhost"):
        msg = f"path={str(path)!r} names the host {parts.netloc!r}: write file:///..."
        raise ConfigError(msg)
    return url2pathname(parts.path)


def is_uri(path: str | Path) -> bool:
    """Whether a path is one of a file system that only Flink reads, or a local one as a URI."""
    return isinstance(path, str) and "://" in path


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('rows' if n is None else str(n) for n in shape)})"


def shape_of(tensor: Any) -> str:
    """Return type and shape of a tensor or array, for error texts."""
    dtype = getattr(tensor, "dtype", None)
    if dtype is None:
        return f"a {type(tensor).__name__}"
    return f"{dtype} {tuple(getattr(tensor, 'shape', ()))}"
