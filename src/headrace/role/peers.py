"""How a few processes meet over plain sockets: each is connected with the first of them.

Rank 0 listens on a port that the system chose and only then publishes the address, with a
random word that a peer must say; the others look it up and connect. What they say to each other
then is not settled here (`headrace.role.star`, `headrace.role.at_rest`).
"""

from __future__ import annotations

import secrets
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from headrace.errors import CollectiveError, WaitTimeoutError
from headrace.role.door import Door
from headrace.role.link import RoleLink
from headrace.role.listening import open_listener

__all__ = ["LOOK_EVERY_S", "StarSpec", "meet_peers"]

LOOK_EVERY_S = 0.2
"""How often a wait for peers looks at what else there is, in seconds."""

_RANK = struct.Struct("<Q")  # said after the word
_WORD_BYTES = 32
_CONNECT_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class StarSpec:
    """One process' place in the group.

    Attributes:
        name: Name of the group; part of the key under which rank 0 is found.
        rank: 0 to `world_size` - 1.
        world_size: Processes in the group.
        host: Address of this host as the others reach it.
        gather_timeout_s: From here until all have met, in seconds.
        gather_setting: What sets it, for error texts.
        collective_timeout_s: Longest wait of one sum, or for a peer to take a message, in
            seconds.
        check: Called now and then during a wait; what it raises ends the wait.
        met_by: What a process calls to be part of the group, for error texts.
        advice: What must be so where the processes' vectors differ, for error texts.
    """

    name: str
    rank: int
    world_size: int
    host: str
    gather_timeout_s: float
    collective_timeout_s: float
    gather_setting: str = "timeouts.gather_timeout_s"
    check: Callable[[], object] = lambda: None
    met_by: str = "ctx.data_parallel"
    advice: str = "Every process must build the same model and optimizer"


def meet_peers(spec: StarSpec, link: RoleLink) -> list[socket.socket]:
    """Meet the other processes of the group; return connections, which the caller closes.

    Blocks at most `spec.gather_timeout_s`: rank 0 until all others have come, the others until
    they are connected to rank 0. A group of one needs nobody.

    Returns:
        Of rank 0: one to each other process, in the order of their ranks; of those: the one to
        rank 0.

    Raises:
        WaitTimeoutError: Not all came in time; to the others, rank 0 did not.
        CollectiveError: Rank 0 has ended.
    """
    if spec.world_size == 1:
        return []
    deadline = monotonic() + spec.gather_timeout_s
    key = f"star/{spec.name}"
    if spec.rank == 0:
        word = secrets.token_hex(_WORD_BYTES // 2)
        with open_listener(spec.host, peers=spec.world_size) as listener:
            link.publish(key, f"{word}@{spec.host}:{listener.getsockname()[1]}")
            return _accept(spec, listener, word.encode(), deadline)
    try:
        word, _, address = link.lookup(key, spec.gather_timeout_s).partition("@")
    except WaitTimeoutError as error:
        raise WaitTimeoutError(
            waited_for=f"rank 0 of the group {spec.name!r} to tell where it listens",
            waited_s=spec.gather_timeout_s,
            setting=spec.gather_setting,
            hint=f"Has every process called {spec.met_by}?",
        ) from error
    host, _, port = address.rpartition(":")
    begin, peer = monotonic(), None
    try:
        peer = socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S)
        peer.sendall(word.encode() + _RANK.pack(spec.rank))
        _prepare(peer, spec)
    except OSError as error:
        if peer is not None:
            peer.close()
        raise CollectiveError(
            operation=f"start of the group {spec.name!r}",
            waited_s=monotonic() - begin,
            limit_s=_CONNECT_TIMEOUT_S,
            setting=None,
            reason=str(error),
            is_consequence=True,
        ) from error
    return [peer]


def _accept(
    spec: StarSpec, listener: socket.socket, word: bytes, deadline: float
) -> list[socket.socket]:
    """Take connections until every peer has said the word; others are closed."""
    peers: dict[int, socket.socket] = {}
    door = Door(listener, word, extra_bytes=_RANK.size, peers=spec.world_size)
    try:
        while len(peers) < spec.world_size - 1:
            spec.check()
            _require_time(spec, deadline, came=len(peers) + 1)
            for peer, said in door.admit(LOOK_EVERY_S):
                (rank,) = _RANK.unpack(said)
                if not 0 < rank < spec.world_size or rank in peers:
                    peer.close()
                    continue
                peers[rank] = peer
                _prepare(peer, spec)
    except BaseException:
        for peer in peers.values():
            peer.close()
        raise
    finally:
        door.close()
    return [peers[rank] for rank in sorted(peers)]


def _require_time(spec: StarSpec, deadline: float, *, came: int) -> None:
    if monotonic() < deadline:
        return
    raise WaitTimeoutError(
        waited_for=f"the {spec.world_size} processes of the group {spec.name!r} to meet; "
        f"{came} came",
        waited_s=spec.gather_timeout_s,
        setting=spec.gather_setting,
        hint=f"Has one of them ended, or not called {spec.met_by}?",
    )


def _prepare(peer: socket.socket, spec: StarSpec) -> None:
    peer.settimeout(spec.collective_timeout_s)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
