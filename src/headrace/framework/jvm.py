"""A child's line to the JVM: stdin and stdout as asyncio sees them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from typing import BinaryIO

import msgspec

from headrace.errors import ProtocolError
from headrace.framework.jvm_lines import (
    FromJvm,
    NodeReportLine,
    StatusLine,
    ToJvm,
    decode_from_jvm,
)
from headrace.framework.jvm_watch import watch_for_freeze

__all__ = ["JvmLink", "claim_stdout"]

_LOG = logging.getLogger(__name__)
_LINE_BYTES = 16 * 1024 * 1024
_BACKLOG_BYTES = 1024 * 1024
_FIRST_S = 60.0  # a JVM sends the first line as soon as it has started its child


def claim_stdout() -> BinaryIO:
    """Return a file for the lines to the JVM, and turn stdout into stderr for everybody else.

    Call it first in a child: a stray `print` then lands in the log and cannot break the
    protocol.
    """
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return lines


class JvmLink:
    """Lines from the JVM, in order, and lines to it.

    Thread model: belongs to one asyncio loop. Sending never blocks: if the JVM does not
    read, lines that only hold latest values (status, report) are dropped, the others are kept.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        incoming: asyncio.ReadTransport,
        writer: asyncio.WriteTransport,
    ) -> None:
        self._reader = reader
        self._incoming = incoming
        self._writer = writer
        self._is_watched = False
        self._encoder = msgspec.json.Encoder()

    @classmethod
    async def open(cls, to_jvm: BinaryIO) -> JvmLink:
        """Connect to stdin and to the file of `claim_stdout`."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LINE_BYTES)
        incoming, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin.buffer
        )
        writer, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, to_jvm)
        writer.set_write_buffer_limits(high=_BACKLOG_BYTES)
        return cls(reader, incoming, writer)

    def watch(self, limit_s: float | None) -> None:
        """From now on a JVM that has been stopped for `limit_s` seconds counts as gone.

        Without a limit nothing is done, nor at a second call.
        """
        if limit_s is None or self._is_watched:
            return
        self._is_watched = True
        loop = asyncio.get_running_loop()

        def on_frozen(stopped_s: float) -> None:
            with contextlib.suppress(RuntimeError):  # this process is about to end
                loop.call_soon_threadsafe(self._give_up, stopped_s, limit_s)

        watch_for_freeze(os.getppid(), limit_s, on_frozen)

    def _give_up(self, stopped_s: float, limit_s: float) -> None:
        _LOG.warning(
            "the JVM has been stopped (SIGSTOP) for %.1f s (limit %.1f s, Flink's "
            "`heartbeat.timeout`): its tasks run elsewhere by now, or never again",
            stopped_s,
            limit_s,
        )
        self._incoming.close()

    async def receive(self) -> FromJvm | None:
        """Return the next line, or None when the JVM is gone, or counts as gone.

        Raises:
            ProtocolError: The line is not one of the protocol.
        """
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        except ValueError as exc:
            msg = f"The JVM sent a line of more than {_LINE_BYTES} bytes"
            raise ProtocolError(msg) from exc
        return decode_from_jvm(line) if line.endswith(b"\n") else None

    async def receive_first(self, within_s: float = _FIRST_S) -> FromJvm | None:
        """Return the first line, or None when the JVM is gone, or has no thread to send it.

        Raises:
            ProtocolError: The line is not one of the protocol.
        """
        try:
            return await asyncio.wait_for(self.receive(), within_s)
        except asyncio.TimeoutError:
            _LOG.warning("the JVM has sent nothing for %.1f s: this process ends", within_s)
            return None

    async def is_gone(self, within_s: float) -> bool:
        """Say whether the JVM is gone, or goes within `within_s` seconds.

        For the end: a line that comes meanwhile is lost, and says that the JVM is there.
        """
        try:
            return await asyncio.wait_for(self.receive(), within_s) is None
        except (asyncio.TimeoutError, ProtocolError):
            return False

    def send(self, line: ToJvm) -> None:
        """Send one line; does not wait. Lost if the JVM is gone."""
        if self._writer.is_closing():
            return
        is_droppable = isinstance(line, StatusLine | NodeReportLine)
        if is_droppable and self._writer.get_write_buffer_size() > _BACKLOG_BYTES:
            return
        self._writer.write(self._encoder.encode(line) + b"\n")

    async def flush(self, timeout_s: float) -> None:
        """Wait until every line is with the JVM, at most `timeout_s` seconds."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._writer.get_write_buffer_size() and not self._writer.is_closing():
            if asyncio.get_running_loop().time() >= deadline:
                return
            await asyncio.sleep(0.005)
