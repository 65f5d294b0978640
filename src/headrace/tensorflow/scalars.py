"""What a process reports, as scalars that TensorBoard shows.

Written with TensorBoard's own writer of event files, not with `tf.summary`: that one lives
inside TensorFlow's runtime, which an entry function may still have to configure, and which
forgets it when the process connects to a cluster.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import monotonic, time_ns

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

__all__ = ["ScalarWriter"]

_WRITE_EVERY_S = 0.2
_STEP_NAMES = ("step", "steps")


class ScalarWriter:
    """Writes the latest reported values, at most every 0.2 s and at the end.

    The step of a value is what was reported as ``step`` or ``steps``, else the number of the
    report. A thread of TensorBoard's writes; `close` waits for it. Thread model: one thread at
    a time.

    Args:
        directory: Where the event file goes.
    """

    def __init__(self, directory: Path) -> None:
        self._file = EventFileWriter(str(directory))
        self._values: dict[str, float] = {}
        self._step: int | None = None
        self._reports = 0
        self._next_write = 0.0
        self._is_closed = False

    def update(self, values: Mapping[str, float]) -> None:
        """Keep the latest values, and write what is new if it is time."""
        self._reports += 1
        for name, value in values.items():
            if name in _STEP_NAMES:
                self._step = int(value)
            else:
                self._values[name] = value
        now = monotonic()
        if now >= self._next_write:
            self._next_write = now + _WRITE_EVERY_S
            self._write()

    def close(self) -> None:
        """Write what is new, and close the file. Idempotent."""
        if not self._is_closed:
            self._is_closed = True
            self._write()
            self._file.close()

    def _write(self) -> None:
        scalars = [
            Summary.Value(tag=name, simple_value=value) for name, value in self._values.items()
        ]
        self._values.clear()
        if scalars:
            step = self._reports if self._step is None else self._step
            self._file.add_event(
                Event(wall_time=time_ns() / 1e9, step=step, summary=Summary(value=scalars))
            )
            self._file.flush()
