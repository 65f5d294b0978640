"""A node's connection with the master, kept up over every break and restart of the master."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeAlias

from headrace.config import TimeoutConfig
from headrace.errors import ConfigError, HeadraceError, MasterLostError
from headrace.framework.clock import Clock
from headrace.framework.jvm_lines import MasterAddress
from headrace.framework.messages import (
    Attend,
    Beat,
    Directive,
    Lookup,
    Publish,
    Register,
    StopJob,
)
from headrace.framework.rpc.client import MasterClient
from headrace.framework.rpc.protocol import (
    MasterUnreachableError,
    RefusedError,
    StaleAttemptError,
    UnknownNodeError,
)
from headrace.framework.rpc.tls import Identity

__all__ = ["Attendance", "Attendant", "Delivery"]

_LOG = logging.getLogger(__name__)
_CALL_S = 5.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_LOOKUP_MARGIN_S = 5.0
_GOODBYE_S = 0.5

Delivery: TypeAlias = Callable[[MasterClient], Awaitable[None]]
"""One call that must reach the master; safe to repeat."""


class Attendant(Protocol):
    """The node, as its attendance sees it. Called on the loop; must not block."""

    def registration(self) -> Register:
        """Return the node's present state of itself."""

    def heartbeat(self) -> Beat:
        """Return the latest values."""

    def on_attempt(self, attempt: int) -> None:
        """The master is at a newer attempt."""

    def on_directive(self, directive: Directive) -> None:
        """The master says what to do."""

    def on_no_contact(self) -> None:
        """The master cannot be reached; called after each attempt to reach it."""

    def on_master_lost(self, error: HeadraceError) -> None:
        """The master is gone for good; called once."""


class Attendance:
    """Registers, follows the directives, beats, and delivers what must reach the master.

    Calls to be delivered keep their order and are repeated until the master has them or their
    attempt is over. Thread model: belongs to one asyncio loop; `connect` starts one task.
    """

    def __init__(
        self,
        attendant: Attendant,
        *,
        timeouts: TimeoutConfig,
        clock: Clock,
        identity: Identity | None = None,
    ) -> None:
        self._attendant = attendant
        self._identity = identity
        self._timeouts = timeouts
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._client: MasterClient | None = None
        self._registered = asyncio.Event()
        self._outgoing: deque[Delivery] = deque()
        self._has_outgoing = asyncio.Event()
        self._delivered = asyncio.Event()
        self._published: dict[str, Delivery] = {}
        self._wish: Delivery | None = None
        self._last_contact = 0.0

    def connect(self, master: MasterAddress) -> None:
        """Attend to the master at this address from now on, and no longer to a former one."""
        if self._task is not None:
            self._task.cancel()
        self._registered.clear()
        self._last_contact = self._clock.monotonic()
        self._task = asyncio.create_task(self._attend(master), name="attendance")

    def deliver(self, delivery: Delivery) -> None:
        """See to it that a call reaches the master; does not wait."""
        self._outgoing.append(delivery)
        self._delivered.clear()
        self._has_outgoing.set()

    def publish(self, request: Publish) -> None:
        """Make a value known, also to a master that is started again; does not wait."""
        self._published[request.key] = _publication(request)
        self.deliver(self._published[request.key])

    def wish(self, request: StopJob) -> None:
        """Tell a wish, also to a master that is started again; does not wait."""
        self._wish = _wish(request)
        self.deliver(self._wish)

    def forget_told(self) -> None:
        """Begin a new attempt: what was published and wished is void."""
        self._published.clear()
        self._wish = None

    async def lookup(self, request: Lookup) -> str | None:
        """Wait for a value over breaks of the connection; None at the request's time-out.

        Raises:
            HeadraceError: The attempt is over, or the master refuses the call.
        """
        deadline = self._clock.monotonic() + request.timeout_s
        while (left_s := deadline - self._clock.monotonic()) > 0:
            try:
                await asyncio.wait_for(self._registered.wait(), left_s)
            except asyncio.TimeoutError:
                return None
            client = self._client
            if client is None:
                continue
            ask = Lookup(
                node=request.node,
                instance=request.instance,
                attempt=request.attempt,
                key=request.key,
                timeout_s=left_s,
            )
            try:
                value = await client.lookup(ask, timeout_s=left_s + _LOOKUP_MARGIN_S)
            except (MasterUnreachableError, UnknownNodeError):
                await asyncio.sleep(_FIRST_PAUSE_S)
                continue
            if value is not None:
                return value
        return None

    async def close(self) -> None:
        """Deliver what is left if the master is there, and end. Bounded by 1.5 seconds."""
        if self._outgoing and self._registered.is_set():
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._delivered.wait(), _GOODBYE_S)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task}, timeout=1.0)

    async def _attend(self, master: MasterAddress) -> None:
        silence_s = self._timeouts.heartbeat_timeout_s
        try:
            client = MasterClient(
                master.address,
                master.token,
                silence_s=silence_s,
                identity=self._identity,
                tls_name=master.tls_name,
            )
        except ConfigError as exc:
            self._attendant.on_master_lost(exc)
            return
        self._client = client
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                try:
                    beat_every_s = await self._register(client)
                    pause_s = _FIRST_PAUSE_S
                    await self._follow(client, beat_every_s)
                except StaleAttemptError as exc:
                    self._attendant.on_attempt(exc.attempt)
                    continue
                except (MasterUnreachableError, UnknownNodeError) as exc:
                    _LOG.info("no contact with the master at %s: %s", master.address, exc)
                    self._attendant.on_no_contact()
                except RefusedError as exc:
                    self._attendant.on_master_lost(exc)
                    return
                except Exception as exc:  # noqa: BLE001 - a defect must be told
                    _LOG.exception("the connection with the master failed")
                    error = HeadraceError(f"The connection with the master failed: {exc!r}")
                    self._attendant.on_master_lost(error)
                    return
                finally:
                    self._registered.clear()
                if self._is_lost(master):
                    return
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            await client.close()

    async def _register(self, client: MasterClient) -> float:
        request = self._attendant.registration()
        timeout_s = min(_CALL_S, self._timeouts.master_lost_timeout_s)
        reply = await client.register(request, timeout_s=timeout_s)
        self._attendant.on_attempt(reply.attempt)
        self._note_contact()
        self._queue_told()
        self._registered.set()
        return reply.heartbeat_every_s

    def _queue_told(self) -> None:
        """Tell a master that may be a new one what it must know, before all else.

        What has not left since it was last queued is not queued again: a connection may break
        again and again before anything gets through.
        """
        told = list(self._published.values())
        if self._wish is not None:
            told.insert(0, self._wish)
        queued = set(self._outgoing)
        self._outgoing.extendleft(each for each in reversed(told) if each not in queued)
        self._has_outgoing.set()

    async def _follow(self, client: MasterClient, beat_every_s: float) -> None:
        """Attend until the connection breaks; raises what broke it."""
        tasks = [
            asyncio.create_task(self._take_directives(client), name="directives"),
            asyncio.create_task(self._beat(client, beat_every_s), name="heartbeats"),
            asyncio.create_task(self._send_outgoing(client), name="outgoing"),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._note_contact()  # it was there until now
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _take_directives(self, client: MasterClient) -> None:
        registration = self._attendant.registration()
        request = Attend(
            node=registration.node,
            instance=registration.instance,
            attempt=registration.attempt,
        )
        async for directive in client.attend(request):
            self._attendant.on_directive(directive)
        msg = "the master has ended the stream"
        raise MasterUnreachableError(msg)

    async def _beat(self, client: MasterClient, every_s: float) -> None:
        async def beats() -> AsyncIterator[Beat]:
            while True:
                yield self._attendant.heartbeat()
                await asyncio.sleep(every_s)

        await client.beat(beats())

    async def _send_outgoing(self, client: MasterClient) -> None:
        while True:
            await self._has_outgoing.wait()
            self._has_outgoing.clear()
            while self._outgoing:
                try:
                    await self._outgoing[0](client)
                except StaleAttemptError as exc:
                    _LOG.info("not delivered: %s", exc)
                except RefusedError as exc:
                    _LOG.error("not delivered: %s", exc)
                self._outgoing.popleft()
            self._delivered.set()

    def _note_contact(self) -> None:
        self._last_contact = self._clock.monotonic()

    def _is_lost(self, master: MasterAddress) -> bool:
        silent_s = self._clock.monotonic() - self._last_contact
        limit_s = self._timeouts.master_lost_timeout_s
        if silent_s < limit_s:
            return False
        node = self._attendant.registration().node
        self._attendant.on_master_lost(
            MasterLostError(
                node=node, address=master.address, silent_s=silent_s, limit_s=limit_s
            )
        )
        return True


def _publication(request: Publish) -> Delivery:
    async def deliver(client: MasterClient) -> None:
        await client.publish(request, timeout_s=_CALL_S)

    return deliver


def _wish(request: StopJob) -> Delivery:
    async def deliver(client: MasterClient) -> None:
        await client.stop_job(request, timeout_s=_CALL_S)

    return deliver
