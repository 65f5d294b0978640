"""Frames over a Unix socket: never blocks in a system call that has no end."""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections.abc import Sequence

from headrace.errors import ExchangeError, PeerLostError, ProtocolError, WaitTimeoutError
from headrace.exchange.frames import Frame, FrameDecoder, encode

__all__ = ["FrameConnection"]

_READ_BYTES = 1 << 16


class FrameConnection:
    """Sends and receives frames.

    Thread model: one thread at a time. Waits are `poll` calls, so the GIL is free meanwhile.
    The death of the other side ends every wait with `PeerLostError`.
    """

    def __init__(self, path: str, *, connect_timeout_s: float) -> None:
        """Connect to the socket at `path`.

        Raises:
            ExchangeError: Nobody listens at `path`.
        """
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Python's own time-out, a default one too, would not wait for room in the
            # listener's queue.
            self._socket.setblocking(True)
            self._socket.setsockopt(
                socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(connect_timeout_s)
            )
            self._socket.connect(path)
            self._socket.setblocking(False)
        except OSError as exc:
            self._socket.close()
            msg = f"The memory queue at {path} cannot be reached: {exc}"
            raise ExchangeError(msg) from exc
        self._poll = select.poll()
        self._fd = self._socket.fileno()
        self._decoder = FrameDecoder()
        self._outgoing = bytearray()

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._socket.fileno() < 0

    def queue(self, frame: Frame) -> None:
        """Add `frame` to what the next `flush` sends. Does not block."""
        self._outgoing += encode(frame)

    def try_flush(self) -> bool:
        """Send what the socket takes now; return whether all has left. Does not block.

        Nothing is sent twice: a stop, which a signal handler may raise as the system call
        returns, finds nothing that it could send again. What is queued then may be lost, as
        all that a process that is stopped has not handed over. It is so little that the
        system takes all or nothing of it, so no frame is cut.
        """
        while self._outgoing:
            data, self._outgoing = self._outgoing, bytearray()
            try:
                sent_bytes = self._socket.send(data)
            except BlockingIOError:
                self._outgoing = data
                return False
            except OSError as exc:
                self._outgoing = data
                raise _lost(exc) from exc
            self._outgoing = data[sent_bytes:]
        return True

    def try_read(self) -> Sequence[Frame]:
        """Return the frames that are there now, perhaps none. Does not block.

        Raises:
            PeerLostError: The other side has closed the connection.
            ProtocolError: It sent what is not a frame.
        """
        try:
            data = self._socket.recv(_READ_BYTES)
        except BlockingIOError:
            return ()
        except OSError as exc:
            raise _lost(exc) from exc
        if not data:
            raise _lost(None)
        return self._decoder.feed(data)

    def wait(self, deadline: float | None) -> bool:
        """Wait until there is something to read, or room for what is queued.

        Args:
            deadline: Monotonic instant at which the wait ends; None waits for as long as the
                other side lives.

        Returns:
            False if the deadline has come first.
        """
        timeout_ms: float | None = None
        if deadline is not None:
            timeout_ms = max(0.0, (deadline - time.monotonic()) * 1000.0)
        events = select.POLLIN | (select.POLLOUT if self._outgoing else 0)
        self._poll.register(self._fd, events)
        return bool(self._poll.poll(timeout_ms))

    def exchange_one(self, deadline: float, *, waited_for: str, setting: str) -> Frame:
        """Send everything that is queued, then wait for exactly one frame.

        Raises:
            WaitTimeoutError: The deadline has come first; the error names `setting`.
            ProtocolError: More than one frame came.
        """
        started = time.monotonic()
        while True:
            if self.try_flush():
                frames = list(self.try_read())
                if len(frames) > 1:
                    msg = f"{frames[1]} came before it was due"
                    raise ProtocolError(msg)
                if frames:
                    return frames[0]
            if not self.wait(deadline):
                waited_s = time.monotonic() - started
                raise WaitTimeoutError(
                    waited_for=waited_for, waited_s=waited_s, setting=setting
                )

    def close(self) -> None:
        """Close the socket. Idempotent; what is still queued is lost."""
        self._socket.close()


def _timeval(seconds: float) -> bytes:
    return struct.pack("@ll", *divmod(max(1, round(seconds * 1e6)), 1_000_000))


def _lost(cause: OSError | None) -> PeerLostError:
    why = "" if cause is None or cause.errno is None else f" ({os.strerror(cause.errno)})"
    return PeerLostError(
        f"The Flink operator closed the memory queue without saying END{why}: its TaskManager "
        "has died, or the subtask was cancelled or has failed. This process must end; Flink "
        "starts a new one."
    )
