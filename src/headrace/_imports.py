"""How large libraries are imported."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import LazyLoader, find_spec
from types import ModuleType

__all__ = ["quick_imports"]

_LATER = frozenset(
    {
        # Keras' wrappers for scikit-learn and its plots import all of scikit-learn and of
        # Matplotlib, where those are installed: a third of the import of TensorFlow.
        "keras._tf_keras.keras.visualization",
        "keras._tf_keras.keras.wrappers",
        "keras.src.visualization",
        "keras.src.wrappers",
        "keras.visualization",
        "keras.wrappers",
        # Torch looks whether it could draw a graph, and so imports a parser.
        "pydot",
    }
)


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import large libraries inside.

    Nothing is searched for garbage meanwhile: an import makes objects that stay, a million of
    them in TensorFlow's; looking at them again and again takes a sixth of its time, and of
    PyTorch's. Leaves the collector off where it was off. Modules that a training seldom uses
    are imported when they are first used. For one thread at a time.
    """
    finder = _LaterFinder()
    was_enabled = gc.isenabled()
    gc.disable()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        if was_enabled:
            gc.enable()


class _LaterFinder(MetaPathFinder):
    """Finds the modules of `_LATER` as the others do, to be executed when first used."""

    def __init__(self) -> None:
        self._is_asking = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - the parent has it too
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """Return None for all modules but those, which the other finders are asked for."""
        if fullname not in _LATER or self._is_asking:
            return None
        self._is_asking = True
        try:
            spec = find_spec(fullname)
        finally:
            self._is_asking = False
        if spec is not None and spec.loader is not None:
            spec.loader = LazyLoader(spec.loader)
        return spec
