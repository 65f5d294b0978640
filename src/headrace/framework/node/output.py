"""What an algorithm process writes: forwarded line by line, the last lines kept."""

from __future__ import annotations

import logging
import os
import select
import threading
from collections import deque
from collections.abc import Callable

__all__ = ["LineTail", "OutputPump"]

_LOG = logging.getLogger(__name__)
_READ_BYTES = 65_536
_LINE_BYTES = 65_536
_TAIL_LINES = 50
_TAIL_CHARACTERS = 1000


class LineTail:
    """Cuts bytes into lines and keeps the last ones. Memory is bounded whatever is written.

    A line over 64 KiB is broken into several. Not thread-safe.
    """

    def __init__(self, prefix: bytes = b"") -> None:
        self._prefix = prefix
        self._rest = b""
        self._last: deque[bytes] = deque(maxlen=_TAIL_LINES)

    def feed(self, data: bytes) -> bytes:
        """Take what was written; return the lines that are complete now, with newlines."""
        *lines, rest = (self._rest + data).split(b"\n")
        while len(rest) > _LINE_BYTES:
            lines.append(rest[:_LINE_BYTES])
            rest = rest[_LINE_BYTES:]
        self._rest = rest
        return self._take(lines)

    def finish(self) -> bytes:
        """Return the rest, which had no newline, as a line; empty if there is none."""
        rest, self._rest = self._rest, b""
        return self._take([rest] if rest else [])

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last 50 lines, each cut to 1000 characters; an unfinished one included."""
        lines = [*self._last, self._rest] if self._rest else list(self._last)
        return tuple(
            line[-4 * _TAIL_CHARACTERS :].decode("utf-8", "replace")[-_TAIL_CHARACTERS:]
            for line in lines[-_TAIL_LINES:]
        )

    def _take(self, lines: list[bytes]) -> bytes:
        self._last.extend(lines[-_TAIL_LINES:])
        return b"".join(b"%b%b\n" % (self._prefix, line) for line in lines)


class OutputPump:
    """A thread that moves lines from a pipe to a sink.

    Thread model: the sink is called on the pump's thread and may block: then the writing
    process blocks as well, and nothing else. The thread ends at the end of the pipe, or at
    `finish`. A sink that raises is not called again, and the process can write on.

    Args:
        pipe: Reading end; owned by the pump once it has been made.
        sink: Takes complete lines.
        name: Name of the thread.
        prefix: Put before each line.
    """

    def __init__(
        self, pipe: int, sink: Callable[[bytes], None], *, name: str, prefix: bytes = b""
    ) -> None:
        self._pipe = pipe
        self._sink: Callable[[bytes], None] | None = sink
        self._tail = LineTail(prefix)
        self._lock = threading.Lock()
        self._wake_read, self._wake_write = os.pipe()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except BaseException:
            os.close(self._wake_read)
            os.close(self._wake_write)
            raise

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines so far. Safe from any thread."""
        with self._lock:
            return self._tail.last_lines

    def finish(self, timeout_s: float) -> bool:
        """Take what is in the pipe now, and end. Blocks, at most `timeout_s` seconds.

        Returns:
            Whether the thread has ended; not so if the sink blocks. Call it once.
        """
        os.close(self._wake_write)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        try:
            while True:
                ready = {fd for fd, _ in poll.poll()}
                if self._pipe in ready:
                    data = os.read(self._pipe, _READ_BYTES)
                    if not data:
                        break
                    self._forward(data)
                elif self._wake_read in ready:
                    break  # asked to finish, and the pipe is empty
            with self._lock:
                rest = self._tail.finish()
            self._write(rest)
        finally:
            os.close(self._pipe)
            os.close(self._wake_read)

    def _forward(self, data: bytes) -> None:
        with self._lock:
            lines = self._tail.feed(data)
        self._write(lines)

    def _write(self, lines: bytes) -> None:
        if self._sink is None:
            return
        try:
            self._sink(lines)
        except Exception as exc:  # noqa: BLE001 - the sink may be the user's
            self._sink = None
            _LOG.warning("%s: its lines go nowhere from now on: %r", self._thread.name, exc)
