"""What a process reports, as scalars that TensorBoard shows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import tensorflow as tf

__all__ = ["ScalarWriter"]

_WRITE_EVERY_S = 0.2
_STEP_NAMES = ("step", "steps")


class ScalarWriter:
    """Writes the latest reported values, at most every 0.2 s and at the end.

    The step of a value is what was reported as ``step`` or ``steps``, else the number of the
    report. Event files appear in a directory of this process and attempt below the log
    directory. Thread model: one thread at a time.

    Args:
        directory: Where the event files go.
    """

    def __init__(self, directory: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(directory))
        self._values: dict[str, float] = {}
        self._reports = 0
        self._next_write = 0.0
        self._is_closed = False

    def update(self, values: Mapping[str, float]) -> None:
        """Keep the latest values, and write what is new if it is time."""
        self._values.update(values)
        self._reports += 1
        now = monotonic()
        if now >= self._next_write:
            self._next_write = now + _WRITE_EVERY_S
            self._write()

    def close(self) -> None:
        """Write what is new, and close the file. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._write()
            self._writer.close()

    def _write(self) -> None:
        step = self._reports
        for name in _STEP_NAMES:
            step = int(self._values.get(name, step))
        with self._writer.as_default():
            for name, value in self._values.items():
                if name not in _STEP_NAMES:
                    tf.summary.scalar(name, value, step=step)
        self._writer.flush()
        self._values = {n: v for n, v in self._values.items() if n in _STEP_NAMES}
