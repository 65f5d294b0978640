"""Adds up the vectors of a few processes over plain sockets, through the first of them.

They meet as `headrace.role.peers` says. For one sum every peer sends its vector to rank 0,
which adds them in the order of their ranks and sends the result back: all get the same bits,
and the same again in another run.

A process that ends closes its sockets, which the others see at once; rank 0 tells the rest
before it raises. A process that is alive but silent is waited for until the limit. Nothing is
compressed and nothing is encrypted: vectors travel as they lie in memory, between machines of
one kind.
"""

from __future__ import annotations

import select
import socket
import struct
from collections.abc import Sequence
from time import monotonic
from typing import Any

import numpy as np
import numpy.typing as npt

from headrace.errors import CollectiveError, ConfigError
from headrace.role.cause import let_the_cause_go_first
from headrace.role.link import RoleLink
from headrace.role.peers import LOOK_EVERY_S, StarSpec, meet_peers

__all__ = ["Star", "StarSpec", "open_star"]

_HEADER = struct.Struct("<QQ")  # number of the sum, bytes of the vector
_GIVEN_UP = (1 << 64) - 1  # in place of the number: another peer has ended

Vector = npt.NDArray[Any]


def open_star(spec: StarSpec, link: RoleLink) -> Star:
    """Meet the other processes of the group; see `meet_peers`, also for who waits for whom.

    Raises:
        WaitTimeoutError: Not all came in time; to all but rank 0, it did not.
        CollectiveError: Rank 0 has ended.
    """
    return Star(spec, meet_peers(spec, link))


class Star:
    """The group, seen from one process. `open_star` makes it.

    Thread model: one thread at a time. Every method but `close` is collective: all processes
    call it, in the same order, with vectors of the same size and type.
    """

    def __init__(self, spec: StarSpec, peers: Sequence[socket.socket]) -> None:
        self._spec = spec
        self._peers = list(peers)  # of rank 0: the others in the order of their ranks
        self._number = 0
        self._received: dict[int, Vector] = {}

    @property
    def rank(self) -> int:
        """This process' number."""
        return self._spec.rank

    @property
    def world_size(self) -> int:
        """Number of processes."""
        return self._spec.world_size

    def add(self, vector: Vector) -> None:
        """Replace `vector`, which is contiguous, by the sum over all processes.

        Blocks until all have called it, at most `collective_timeout_s`.

        Raises:
            CollectiveError: A peer ended, or did not come within the limit.
            ConfigError: A peer has a vector of another size.
        """
        self._exchange(vector, is_sum=True)

    def spread(self, vector: Vector) -> None:
        """Overwrite `vector`, which is contiguous, by that of rank 0. Raises as `add`."""
        self._exchange(vector, is_sum=False)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        for peer in self._peers:
            peer.close()
        self._peers.clear()

    def _exchange(self, vector: Vector, *, is_sum: bool) -> None:
        if self.world_size == 1:
            return
        self._number += 1
        begin = monotonic()
        try:
            if self.rank == 0:
                self._serve(vector, begin, is_sum=is_sum)
            else:
                self._ask(vector, begin, is_sum=is_sum)
        except TimeoutError:  # a peer that takes nothing more
            raise self._failed(begin) from None
        except OSError as error:
            self._tell_the_rest()
            let_the_cause_go_first()
            raise self._failed(begin, lost=error) from error

    def _serve(self, vector: Vector, begin: float, *, is_sum: bool) -> None:
        body = vector if is_sum else vector[:0]
        received = [self._buffer(peer, body) for peer in self._peers]
        waiting = [
            _Arrival(peer, buffer) for peer, buffer in zip(self._peers, received, strict=True)
        ]
        self._receive_all(waiting, begin)
        if is_sum:
            for buffer in received:
                np.add(vector, buffer, out=vector)
        message = _HEADER.pack(self._number, vector.nbytes)
        for peer in self._peers:
            peer.sendall(message)
            peer.sendall(_bytes(vector))

    def _ask(self, vector: Vector, begin: float, *, is_sum: bool) -> None:
        (peer,) = self._peers
        body = vector if is_sum else vector[:0]
        peer.sendall(_HEADER.pack(self._number, body.nbytes))
        if body.nbytes:
            peer.sendall(_bytes(body))
        self._receive_all([_Arrival(peer, vector)], begin)

    def _receive_all(self, waiting: list[_Arrival], begin: float) -> None:
        """Fill every buffer; a peer that hangs up is seen whoever is waited for."""
        deadline = begin + self._spec.collective_timeout_s
        poll = select.poll()
        by_number = {}
        for arrival in waiting:
            by_number[arrival.peer.fileno()] = arrival
            poll.register(arrival.peer, select.POLLIN)
        complete: set[int] = set()
        look_at = begin
        while len(complete) < len(waiting):
            now = monotonic()
            if now >= look_at:  # also while a peer sends a little again and again
                self._spec.check()
                look_at = now + LOOK_EVERY_S
            wait_s = max(0.0, min(look_at, deadline) - now)
            for number, _ in poll.poll(wait_s * 1000):
                if number in complete:
                    raise _PeerGoneError  # while others were waited for
                arrival = by_number[number]
                arrival.take()
                if arrival.header is not None:
                    self._require_fits(arrival)
                if arrival.is_complete:
                    complete.add(number)
                    poll.modify(number, select.POLLRDHUP)
            if now >= deadline and len(complete) < len(waiting):
                raise self._failed(begin)

    def _require_fits(self, arrival: _Arrival) -> None:
        assert arrival.header is not None
        number, size_bytes = arrival.header
        if number == _GIVEN_UP:
            raise _PeerGoneError
        if number != self._number or size_bytes != arrival.size_bytes:
            msg = (
                f"The models or loops of the group {self._spec.name!r} differ: a peer is at "
                f"sum {number} with {size_bytes} bytes, this process at {self._number} with "
                f"{arrival.size_bytes}. {self._spec.advice}."
            )
            raise ConfigError(msg)

    def _buffer(self, peer: socket.socket, like: Vector) -> Vector:
        kept = self._received.get(peer.fileno())
        if kept is None or kept.size != like.size or kept.dtype != like.dtype:
            kept = self._received[peer.fileno()] = np.empty_like(like)
        return kept

    def _failed(self, begin: float, *, lost: OSError | None = None) -> CollectiveError:
        """Return the error that says that the time is up, or that a peer has ended."""
        return CollectiveError(
            operation=self._name,
            waited_s=monotonic() - begin,
            limit_s=self._spec.collective_timeout_s,
            reason="the time is up" if lost is None else str(lost),
            is_consequence=lost is not None,
        )

    def _tell_the_rest(self) -> None:
        if self.rank:
            return
        for peer in self._peers:
            peer.setblocking(False)
            try:
                peer.send(_HEADER.pack(_GIVEN_UP, 0))
            except OSError:
                continue  # this is the one that is gone, or it is full: it sees our end

    @property
    def _name(self) -> str:
        return f"sum {self._number} of the group {self._spec.name!r}"


class _Arrival:
    """What comes from one peer: a header, then the bytes of a vector."""

    def __init__(self, peer: socket.socket, vector: Vector) -> None:
        self.peer = peer
        self.header: tuple[int, int] | None = None
        self.size_bytes = vector.nbytes
        self._head = bytearray(_HEADER.size)
        self._head_view = memoryview(self._head)
        self._body = _bytes(vector)
        self._taken = 0

    @property
    def is_complete(self) -> bool:
        """Whether header and body are there."""
        return self.header is not None and self._taken == self.size_bytes

    def take(self) -> None:
        """Take what has come, without waiting; also the body, once the header was looked at."""
        if self.header is None:
            self._taken += self._read(self._head_view[self._taken :])
            if self._taken == _HEADER.size:
                self.header = _HEADER.unpack(self._head)
                self._taken = 0
            return
        self._taken += self._read(self._body[self._taken :])

    def _read(self, into: memoryview) -> int:
        count = self.peer.recv_into(into, 0, socket.MSG_DONTWAIT)
        if count == 0:
            raise _PeerGoneError
        return count


def _bytes(vector: Vector) -> memoryview:
    return vector.view(np.uint8).data if vector.nbytes else memoryview(b"")


class _PeerGoneError(ConnectionError):
    """A peer has closed its connection."""

    def __init__(self) -> None:
        super().__init__("a peer has closed its connection")
