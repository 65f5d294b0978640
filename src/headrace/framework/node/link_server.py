"""The node's end of the link to its algorithm process."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable

import msgspec

from headrace.framework.link_lines import (
    FromNode,
    FromProcess,
    decode_from_process,
    encode_line,
)

__all__ = ["LinkServer"]

_LOG = logging.getLogger(__name__)
_READ_BYTES = 65_536
_READS_AT_ONCE = 64
_LINE_BYTES = 8 * 1024 * 1024
_BACKLOG_BYTES = 1024 * 1024


class LinkServer:
    """Reads lines of the process and writes answers; whatever the process sends does no harm.

    Thread model: belongs to one asyncio loop; `on_line` is called on it.
    """

    def __init__(self, end: socket.socket, on_line: Callable[[FromProcess], None]) -> None:
        end.setblocking(False)
        self._socket = end
        self._on_line = on_line
        self._buffer = bytearray()
        self._unsent = bytearray()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._read)

    def send(self, line: FromNode) -> None:
        """Send one line; does not wait. Lost if the process is gone or does not read."""
        if self._socket.fileno() < 0 or len(self._unsent) > _BACKLOG_BYTES:
            return
        self._unsent += encode_line(line)
        self._write()

    def drain(self) -> None:
        """Take everything that has been sent; call it when the process has ended."""
        while self._socket.fileno() >= 0 and self._read():
            pass

    def close(self) -> None:
        """Close. Safe to repeat."""
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()

    def _read(self) -> bool:
        """Take some of what has been sent; return whether there may be more."""
        for _ in range(_READS_AT_ONCE):
            try:
                data = self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return False
            except OSError:
                data = b""
            if not data:
                self.close()
                return False
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        self._buffer += data
        if b"\n" not in data:
            if len(self._buffer) > _LINE_BYTES:
                _LOG.error("the process sent a line of more than %d bytes", _LINE_BYTES)
                self.close()
            return
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        for line in lines:
            try:
                self._on_line(decode_from_process(bytes(line)))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:  # noqa: PERF203
                _LOG.error("the process sent %r: %s", bytes(line[:200]), exc)

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._unsent)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._unsent.clear()
            return
        del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._socket, self._write)
        else:
            self._loop.remove_writer(self._socket)
