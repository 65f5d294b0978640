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
_STOP_S = 1.0  # a third of the default `timeouts.stop_grace_s`
_REMOVED = 3
_T = TypeVar("_T")


class SuccessorLoader(Generic[_T]):
    """Looks at a path again and again, and loads what it finds there when that has changed.

    A change counts once it has stood for a second, so that a file is not read while it is
    written; a link that leads elsewhere counts at once, and what it led to is loaded to the end
    and taken, wherever it leads by then. What cannot be loaded is logged and counted, and not
    tried again until it changes. What was removed before it was loaded is no version: the next
    one is tried at once, and a warning comes when that has happened several times running.

    Thread model: one daemon thread looks and loads; it begins with the `with` block and ends
    with it, but for a load that takes longer than 5 s, or than a second where an exception ends
    the block: it is left to end with the process.
    `take` and `rejected` belong to the thread that scores and never wait for a load.

    Args:
        path: Where the model is.
        load: Makes ready what scores, of the version given, read at its `place`; called on the
            loader's thread.
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
        self._removed = 0
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
        self._thread.join(_CLOSE_S if kind is None else _STOP_S)

    def take(self) -> _T | None:
        """Return the latest that is ready, once; None if there is none."""
        if self._ready is None:  # most calls: one before each batch
            return None
        with self._lock:
            ready, self._ready = self._ready, None
            return ready

    def _run(self) -> None:
        pause_s = self._every_s
        while not self._is_closed.wait(pause_s):
            pause_s = self._every_s
            found = version_at(self._path)
            if found is None or found == self._known:
                continue
            if not self._is_moved(found):
                if self._is_closed.wait(self._settle_s):
                    return
                if version_at(self._path) != found:
                    continue
            if not self._try(found):
                pause_s = 0.0

    def _is_moved(self, found: ModelVersion) -> bool:
        """Say whether a link leads elsewhere, which is done in one step."""
        return self._known is not None and self._known.place != found.place

    def _try(self, version: ModelVersion) -> bool:
        """Load a version; return False if it was replaced or removed meanwhile."""
        try:
            loaded = self._load(version)
        except BaseException as exc:  # noqa: BLE001 - also a SystemExit: this thread goes on
            if not version.stands:
                self._note_removed(version)
                return False
            self._known = version
            self.rejected += 1
            _LOG.warning(
                "The new version of %s cannot be used, the former one goes on scoring. "
                "Replace it: it is tried again when it changes. %s: %s",
                self._path,
                type(exc).__name__,
                exc,
            )
            return True
        try:
            is_served = version.is_served(self._path)
        except OSError as exc:
            _LOG.warning(
                "Whether the new version of %s was loaded whole cannot be told, the former one "
                "goes on scoring. It is looked for again. %s",
                self._path,
                exc,
            )
            return False
        if not is_served:
            return False
        self._removed = 0
        self._known = version
        with self._lock:
            self._ready = loaded
        return True

    def _note_removed(self, version: ModelVersion) -> None:
        self._removed += 1
        if self._removed == _REMOVED:
            _LOG.warning(
                "%d versions of %s running were replaced or removed while they were loaded, "
                "%s was the last: the former one goes on scoring. Keep more of them, or write "
                "fewer",
                _REMOVED,
                self._path,
                version.place,
            )
