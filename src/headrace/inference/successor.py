"""Gets the next version of a model ready while the present one scores."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Generic, TypeVar

from headrace.inference.version import ModelVersion, version_at

__all__ = ["SuccessorLoader"]

_LOG = logging.getLogger(__name__)
_SETTLE_S = 1.0
_CLOSE_S = 5.0
_T = TypeVar("_T")


class SuccessorLoader(Generic[_T]):
    """Looks at a path again and again, and loads what it finds there when that has changed.

    A change counts once it has stood for a second, so that a file is not read while it is
    written. What cannot be loaded is logged and counted, and not tried again until it changes.

    Thread model: one daemon thread looks and loads; it begins with the `with` block and ends
    with it, but for a load that takes longer than 5 s and is left to end with the process.
    `take` and `rejected` belong to the thread that scores and never wait for a load.

    Args:
        path: Where the model is.
        load: Makes ready what scores, of the version given; called on the loader's thread.
        present: The version in use at the start.
        every_s: Seconds between two looks.

    Attributes:
        rejected: How many versions could not be loaded.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[ModelVersion], _T],
        *,
        present: ModelVersion | None,
        every_s: float,
    ) -> None:
        self._path = path
        self._load = load
        self._known = present
        self._every_s = every_s
        self._settle_s = min(_SETTLE_S, every_s)
        self._ready: _T | None = None
        self._lock = threading.Lock()
        self._is_closed = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="headrace-successor", daemon=True
        )
        self.rejected = 0

    def __enter__(self) -> SuccessorLoader[_T]:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._is_closed.set()
        self._thread.join(_CLOSE_S)

    def take(self) -> _T | None:
        """Return the latest that is ready, once; None if there is none."""
        if self._ready is None:  # most calls: one before each batch
            return None
        with self._lock:
            ready, self._ready = self._ready, None
            return ready

    def _run(self) -> None:
        while not self._is_closed.wait(self._every_s):
            found = version_at(self._path)
            if found is None or found == self._known or self._is_closed.wait(self._settle_s):
                continue
            if version_at(self._path) == found:
                self._try(found)

    def _try(self, version: ModelVersion) -> None:
        try:
            loaded = self._load(version)
        except BaseException as exc:  # noqa: BLE001 - also a SystemExit: this thread goes on
            if version_at(self._path) != version:
                return  # it was replaced meanwhile: the next look decides
            self._known = version
            self.rejected += 1
            _LOG.warning(
                "The new version of %s cannot be used, the former one goes on scoring. "
                "Replace it: it is tried again when it changes. %s: %s",
                self._path,
                type(exc).__name__,
                exc,
            )
            return
        if version_at(self._path) != version:
            return
        self._known = version
        with self._lock:
            self._ready = loaded
