"""A state file is made before it is needed, beside the training."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headrace.exchange.state_files import StateFile

__all__ = ["FileAhead"]


class FileAhead:
    """Makes the pages of a state file on a thread of its own.

    In pieces, and idle for as long as it works, so that the training keeps the memory's
    bandwidth; what holds the GIL takes a tenth of a millisecond. The thread ends when all pages
    are there, when there is no room for them, or with `end`. Should nobody call that, it ends
    with the process.

    Thread model: `end` by the owner of the file, once; nobody else touches the file before.

    Args:
        file: Of which no page is there.

    Raises:
        RuntimeError: There can be no further thread.
    """

    def __init__(self, file: StateFile) -> None:
        self._file = file
        self._is_over = threading.Event()
        self._thread = threading.Thread(
            target=self._make_pages, name="headrace-state-file", daemon=True
        )
        self._thread.start()

    @property
    def capacity_bytes(self) -> int:
        """Room in the file."""
        return self._file.capacity_bytes

    def end(self) -> StateFile:
        """Return the file with the pages so far; waits for a piece at most, a few ms."""
        self._is_over.set()
        self._thread.join()
        return self._file

    def _make_pages(self) -> None:
        while not self._is_over.is_set():
            began = time.monotonic()
            try:
                if not self._file.make_pages():
                    return
            except OSError:  # whoever fills it learns that there is no room
                return
            self._is_over.wait(time.monotonic() - began)
