"""Lets into a group of processes who knows its word; nobody else is in the way.

The word is a random text that only processes of the same attempt can look up: the master gives
it to nobody without the job's token. Whoever connects is a guest until it has said the word.
Guests are read as their bytes come, so one that says nothing holds nobody up; it is closed
after some seconds, and so is the oldest of too many at once.
"""

from __future__ import annotations

import errno
import hmac
import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic

__all__ = ["Door", "DoorClosedError"]

_GUEST_S = 5.0
_MORE_THAN_PEERS = 64
_PAUSE_S = 0.1
_SCARCITIES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class DoorClosedError(OSError):
    """The listener was shut down."""


@dataclass(slots=True, eq=False)
class _Guest:
    end: socket.socket
    deadline: float
    said: bytearray = field(default_factory=bytearray)


class Door:
    """A listener with the guests in front of it.

    Thread model: one thread at a time; `admit` blocks it. Owns the guests, not the listener.

    Args:
        listener: Must listen; becomes non-blocking.
        word: What a guest must say first.
        extra_bytes: How many bytes it says after the word.
        peers: How many may come at one moment.
        guest_s: How long one may take to say it, in seconds.
    """

    def __init__(
        self,
        listener: socket.socket,
        word: bytes,
        *,
        extra_bytes: int = 0,
        peers: int = 1,
        guest_s: float = _GUEST_S,
    ) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._word = word
        self._hello_bytes = len(word) + extra_bytes
        self._most = peers + _MORE_THAN_PEERS
        self._guest_s = guest_s
        self._guests: dict[int, _Guest] = {}  # by descriptor, in the order in which they came
        self._is_short = False  # of descriptors or memory: no guest is taken for a moment

    def admit(
        self, wait_s: float | None, watched: Iterable[socket.socket] = ()
    ) -> list[tuple[socket.socket, bytes]]:
        """Wait, and return who has said the word, each with its further bytes.

        Blocks until something comes from a guest or from one of `watched`, or `wait_s` seconds
        are over (None: no limit); nobody need be let in then. The caller owns what is returned.

        Raises:
            DoorClosedError: The listener was shut down.
        """
        poll = select.poll()
        if not self._is_short:
            poll.register(self._listener, select.POLLIN)
        for number in self._guests:
            poll.register(number, select.POLLIN)
        for each in watched:
            poll.register(each, select.POLLIN)
        ready = dict(poll.poll(self._limit_ms(wait_s)))
        self._is_short = False
        admitted = [
            each for number in ready if number in self._guests for each in self._hear(number)
        ]
        self._close_late()
        events = ready.get(self._listener.fileno(), 0)
        if events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            for end, _ in admitted:
                end.close()
            raise DoorClosedError
        if events:
            self._take_guests()
        return admitted

    def close(self) -> None:
        """Close the guests. Safe to repeat."""
        for guest in self._guests.values():
            guest.end.close()
        self._guests.clear()

    def _limit_ms(self, wait_s: float | None) -> float | None:
        limits = [] if wait_s is None else [wait_s]
        if self._guests:
            oldest = next(iter(self._guests.values()))
            limits.append(max(0.0, oldest.deadline - monotonic()) + 0.001)
        if self._is_short:
            limits.append(_PAUSE_S)
        return min(limits) * 1000 if limits else None

    def _hear(self, number: int) -> list[tuple[socket.socket, bytes]]:
        guest = self._guests[number]
        try:
            said = guest.end.recv(self._hello_bytes - len(guest.said))
        except BlockingIOError:
            return []
        except OSError:
            said = b""
        guest.said += said
        size = len(self._word)
        if said and len(guest.said) < self._hello_bytes:
            return []
        del self._guests[number]
        if not hmac.compare_digest(bytes(guest.said[:size]), self._word) or not said:
            guest.end.close()
            return []
        guest.end.setblocking(True)
        return [(guest.end, bytes(guest.said[size:]))]

    def _take_guests(self) -> None:
        for _ in range(self._most):
            try:
                end, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _SCARCITIES:
                    raise
                self._is_short = True
                self._close_oldest()
                return
            end.setblocking(False)
            self._guests[end.fileno()] = _Guest(end, monotonic() + self._guest_s)
            if len(self._guests) > self._most:
                self._close_oldest()

    def _close_late(self) -> None:
        now = monotonic()
        while self._guests and next(iter(self._guests.values())).deadline <= now:
            self._close_oldest()

    def _close_oldest(self) -> None:
        if self._guests:
            self._guests.pop(next(iter(self._guests))).end.close()
