"""Workers that train by themselves on common variables, and come to rest for a checkpoint.

They make no common steps (`headrace.role.rounds`), so at a barrier each of them stops and says
so, and goes on when the variables have been captured. One of them, the *keeper* (rank 0), does
that, when all others are *at rest*: at the same barrier, with everything that they have changed
in place; or over, which is at rest for good.

============  ====================================  ============================================
said          by                                    means
============  ====================================  ============================================
REACHED(id)   another one, when it is at rest       I change nothing before you say ANSWER or
                                                    DROP, or that checkpoint is aborted
OVER          another one                           I change nothing any more
ANSWER(id)    the keeper, when it has captured      answer that barrier, and go on
DROP(id)      the keeper                            barriers up to that one are over: go on
============  ====================================  ============================================

What ends each wait: docs/adr/0122. A process that ends closes its connection, which is an error
to who waits for it, unless it was over. At a barrier the operator bounds the wait, by
``timeouts.checkpoint_hold_timeout_s``: it declines the checkpoint then, and says so.
"""

from __future__ import annotations

import select
import socket
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import IntEnum
from time import monotonic
from typing import ClassVar

from headrace.config import TimeoutConfig
from headrace.errors import CollectiveError, ProtocolError
from headrace.role.barriers import Barriers
from headrace.role.cause import let_the_cause_go_first
from headrace.role.link import RoleLink
from headrace.role.peers import StarSpec, meet_peers
from headrace.role.roster import Roster

__all__ = ["AtRest", "Keeper", "Other", "meet_at_rest"]

ATTEND_EVERY_S = 0.02
"""How long a worker at a barrier listens to the others before it looks at its own queue."""

_MESSAGE = struct.Struct("<QQ")  # kind, id of a checkpoint


class _Kind(IntEnum):
    REACHED = 1
    OVER = 2
    ANSWER = 3
    DROP = 4


def meet_at_rest(
    spec: StarSpec, link: RoleLink, rest: Callable[[], object], timeouts: TimeoutConfig
) -> AtRest:
    """Meet the others. Collective; the keeper is rank 0.

    Blocks at most `spec.gather_timeout_s`: the keeper until all others have come, they until
    they are connected to it.

    Args:
        spec: This process' place among them.
        link: Where the keeper says where it listens.
        rest: Returns when all that this process has changed is in place.
        timeouts: Limits on the waits of the job.

    Raises:
        WaitTimeoutError: Not all came in time; to the others, the keeper did not.
        CollectiveError: The keeper has ended.
    """
    kind = Keeper if spec.rank == 0 else Other
    return kind(spec, meet_peers(spec, link), rest, timeouts)


class AtRest(ABC):
    """One worker's part. Made by `meet_at_rest`.

    Thread model: one thread at a time, the one that asks for rows.

    Args:
        spec: This process' place.
        peers: Connections as `meet_peers` returns them; closed by `close`.
        rest: See `meet_at_rest`.
        timeouts: The same.

    Attributes:
        rest: The same.
    """

    _END: ClassVar[str]  # what `end` does, for error texts

    def __init__(
        self,
        spec: StarSpec,
        peers: Sequence[socket.socket],
        rest: Callable[[], object],
        timeouts: TimeoutConfig,
    ) -> None:
        self._spec = spec
        self._peers = [_Peer(each) for each in peers]
        self.rest = rest
        self._hold_timeout_s = timeouts.checkpoint_hold_timeout_s
        self._since = monotonic()
        self._is_at_end = False

    @abstractmethod
    def attend(self, barriers: Barriers, timeout_s: float) -> None:
        """Do what is due for the barrier that is held, if one is.

        Args:
            barriers: Those of this process.
            timeout_s: How long to wait for word from the others, in seconds.

        Raises:
            CollectiveError: Another one has ended before it was over.
        """

    @abstractmethod
    def end(self, barriers: Barriers, attend: Callable[[], object]) -> None:
        """Say that this process changes nothing any more; the keeper waits for the others.

        Args:
            barriers: Those of this process; answered one by one afterwards.
            attend: Called meanwhile, for what must not wait.

        Raises:
            CollectiveError: Another one has ended before it was over.
        """

    def close(self) -> None:
        """Close the connections. Idempotent."""
        for peer in self._peers:
            peer.socket.close()
        self._peers.clear()

    def _hear(self, timeout_s: float) -> list[tuple[int, int, int]]:
        """Return what came: number of the peer, kind and id."""
        self._spec.check()
        poll = select.poll()
        numbers = {}
        for number, peer in enumerate(self._peers):
            if not peer.is_over:
                poll.register(peer.socket, select.POLLIN)
                numbers[peer.socket.fileno()] = number
        heard = []
        try:
            for descriptor, _ in poll.poll(timeout_s * 1000):
                number = numbers[descriptor]
                heard += [(number, *each) for each in self._peers[number].take()]
        except OSError as error:
            raise self._lost(error) from error
        return heard

    def _say(self, number: int, kind: _Kind, checkpoint_id: int = 0) -> None:
        try:
            self._peers[number].socket.sendall(_MESSAGE.pack(kind, checkpoint_id))
        except OSError as error:
            raise self._lost(error) from error

    def _lost(self, error: OSError) -> CollectiveError:
        waited_s = monotonic() - self._since
        let_the_cause_go_first()
        return CollectiveError(
            operation=f"{self._END if self._is_at_end else 'barrier'} of the group "
            f"{self._spec.name!r}",
            waited_s=waited_s,
            limit_s=None if self._is_at_end else self._hold_timeout_s,
            setting=None if self._is_at_end else "timeouts.checkpoint_hold_timeout_s",
            reason=str(error),
            is_consequence=True,
        )

    def _begin_end(self) -> None:
        self._since, self._is_at_end = monotonic(), True


class Keeper(AtRest):
    """The one that captures what all have in common, and waits for all."""

    _END = "wait for the last rows of the other workers"
    _held: int | None = None  # since `_since`

    def __init__(
        self,
        spec: StarSpec,
        peers: Sequence[socket.socket],
        rest: Callable[[], object],
        timeouts: TimeoutConfig,
    ) -> None:
        super().__init__(spec, peers, rest, timeouts)
        self._roster = Roster(len(peers))

    def attend(self, barriers: Barriers, timeout_s: float) -> None:
        """See `AtRest.attend`."""
        if barriers.held != self._held and not self._is_at_end:
            self._held, self._since = barriers.held, monotonic()
        if not self._settle(barriers, 0.0):
            self._settle(barriers, timeout_s)

    def _settle(self, barriers: Barriers, timeout_s: float) -> bool:
        """Listen, and do what follows; return whether a barrier was settled."""
        self._listen(timeout_s)
        held = barriers.held
        ruling = self._roster.rule(held=held, passed=barriers.passed)
        for number in ruling.released:
            self._say(number, _Kind.DROP, barriers.passed if held is None else held - 1)
        self._roster.release(ruling.released)
        if held is None:
            return False
        if ruling.is_older:
            barriers.drop_held()
        elif ruling.is_complete:
            self.rest()
            barriers.answer_held()
            for number in self._roster.answer(held):
                self._say(number, _Kind.ANSWER, held)
        return barriers.held is None

    def end(self, barriers: Barriers, attend: Callable[[], object]) -> None:
        """See `AtRest.end`."""
        self._begin_end()
        self.rest()
        while not self._roster.are_all_over:
            self.attend(barriers, ATTEND_EVERY_S)
            attend()
        barriers.end_common()

    def _listen(self, timeout_s: float) -> None:
        for number, kind, checkpoint_id in self._hear(timeout_s):
            if kind == _Kind.REACHED:
                self._roster.reach(number, checkpoint_id)
            elif kind == _Kind.OVER:
                self._roster.end(number)
                self._peers[number].is_over = True
            else:
                raise _unknown(kind)


class Other(AtRest):
    """One that is not the keeper."""

    _END = "word to worker 0 after the last row"
    _said: int | None = None

    def attend(self, barriers: Barriers, timeout_s: float) -> None:
        """See `AtRest.attend`."""
        if barriers.held is not None and barriers.held != self._said:
            self._since = monotonic()
            self.rest()
            self._said = barriers.held
            self._say(0, _Kind.REACHED, barriers.held)
        for _, kind, checkpoint_id in self._hear(timeout_s):
            if kind not in (_Kind.ANSWER, _Kind.DROP):
                raise _unknown(kind)
            if kind == _Kind.ANSWER and barriers.held == checkpoint_id:
                barriers.answer_held()
            elif barriers.held is not None and barriers.held <= checkpoint_id:
                barriers.drop_held()

    def end(self, barriers: Barriers, attend: Callable[[], object]) -> None:  # noqa: ARG002
        """See `AtRest.end`: this one waits for nobody."""
        self._begin_end()
        self.rest()
        self._say(0, _Kind.OVER)
        barriers.end_common()


class _Peer:
    """A connection, and what has come of a message."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.is_over = False
        self._rest = b""

    def take(self) -> list[tuple[int, int]]:
        """Return the messages that have come whole.

        Raises:
            ConnectionError: The peer has closed its connection.
        """
        came = self.socket.recv(4096, socket.MSG_DONTWAIT)
        if not came:
            msg = "a peer has closed its connection"
            raise ConnectionError(msg)
        came = self._rest + came
        whole = len(came) - len(came) % _MESSAGE.size
        self._rest = came[whole:]
        return [(kind, number) for kind, number in _MESSAGE.iter_unpack(came[:whole])]


def _unknown(kind: int) -> ProtocolError:
    return ProtocolError(f"a worker at a barrier was told {kind}, which nobody says to it")
