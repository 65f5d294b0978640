"""Who reaches the master's port without the job's token, and how much of it they can take."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import pytest

from headrace.framework.machine import JobState
from headrace.framework.rpc.library import grpc
from headrace.framework.rpc.limits import ServerLimits
from headrace.framework.rpc.protocol import (
    MESSAGE_BYTES,
    SERVICE,
    TOKEN_KEY,
    MasterUnreachableError,
)

from .test_rpc import TOKEN, Served, register

METHODS = ("Register", "Attend", "Beat", "ReportEnd", "Publish", "Lookup", "StopJob")
_CALL_S = 5.0
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\x04\0\0\0\0\0"
_PING = b"\0\0\x08\x06\0\0\0\0\0" + b"12345678"
_STRICT = ServerLimits(
    metadata_bytes=2048, connections=10, handshake_s=0.5, idle_s=1.0, pings_too_many=20
)


@asynccontextmanager
async def served(limits: ServerLimits | None = None) -> AsyncIterator[Served]:
    it = Served(limits=limits)
    it.address = await it.server.start("127.0.0.1")
    try:
        yield it
    finally:
        await it.close()


def run(
    scenario: Callable[[Served], Awaitable[None]], limits: ServerLimits | None = None
) -> None:
    """Let strangers do what they want; a node must be served afterwards."""

    async def whole() -> None:
        async with served(limits) as it:
            await scenario(it)
            assert state_of(it) is JobState.GATHERING
            await it.client().register(register(), timeout_s=_CALL_S)
            assert state_of(it) is JobState.RUNNING

    asyncio.run(whole())


def state_of(it: Served) -> JobState:
    return it.master.job.state


async def status_of(
    channel: Any,
    method: str,
    data: bytes,
    metadata: tuple[tuple[str, Any], ...],
    timeout_s: float = _CALL_S,
) -> str:
    """Return the name of the status that a call ends with."""
    given: dict[str, Any] = {"metadata": metadata, "timeout": timeout_s}
    path = f"/{SERVICE}/{method}"
    try:
        if method == "Attend":
            await anext(aiter(channel.unary_stream(path)(data, **given)))
        elif method == "Beat":
            await channel.stream_unary(path)(iter([data]), **given)
        else:
            await channel.unary_unary(path)(data, **given)
    except grpc.aio.AioRpcError as exc:
        return str(exc.code().name)
    return "OK"


def connect(it: Served, first: bytes = b"", host: str = "127.0.0.1") -> socket.socket:
    port = int(it.address.rpartition(":")[2])
    end = socket.create_connection((host, port), timeout=_CALL_S)
    end.sendall(first)
    end.setblocking(False)
    return end


async def is_closed(end: socket.socket, within_s: float) -> bool:
    """Take what comes until the other side closes; False if it has not in that time."""
    loop = asyncio.get_running_loop()

    async def read_all() -> None:
        while await loop.sock_recv(end, 1 << 16):
            pass

    try:
        await asyncio.wait_for(read_all(), within_s)
    except asyncio.TimeoutError:
        return False
    except ConnectionError:
        pass
    return True


def well_formed(method: str) -> bytes:
    """Return a message that the method would take."""
    node = b'{"node":"worker-0","instance":"one","attempt":1'
    return {
        "Register": node + b',"role":"worker","index":0,"parallelism":1,"host":"h"}',
        "ReportEnd": node + b',"outcome":"finished"}',
        "Publish": node + b',"key":"k","value":"v"}',
        "Lookup": node + b',"key":"k","timeout_s":1}',
        "StopJob": node + b',"reason":"r"}',
    }.get(method, node + b"}")


@pytest.mark.parametrize("method", [*METHODS, "NoSuchMethod"])
def test_every_method_asks_for_the_token(method: str) -> None:
    almost = (TOKEN[:-1], TOKEN + "x", TOKEN.upper(), " " + TOKEN)

    async def scenario(it: Served) -> None:
        async with grpc.aio.insecure_channel(it.address) as channel:
            tokens = [(TOKEN_KEY, each) for each in ("", *almost)]
            others = [("authorization", TOKEN), (TOKEN_KEY + "-bin", TOKEN.encode())]
            for metadata in ((), *((each,) for each in (*tokens, *others))):
                for data in (well_formed(method), b"", b"{}", b"\xff"):
                    given = await status_of(channel, method, data, metadata)
                    assert given == "UNAUTHENTICATED", (metadata, data)

    run(scenario)


def test_with_the_token_a_method_that_does_not_exist_is_told() -> None:
    async def scenario(it: Served) -> None:
        async with grpc.aio.insecure_channel(it.address) as channel:
            given = await status_of(channel, "NoSuchMethod", b"{}", ((TOKEN_KEY, TOKEN),))
            assert given == "UNIMPLEMENTED"

    run(scenario)


def test_what_a_stranger_sends_is_not_received() -> None:
    """The call ends while the stranger still sends: it never gets its megabytes off."""

    async def scenario(it: Served) -> None:
        unlimited = (("grpc.max_send_message_length", -1),)
        async with grpc.aio.insecure_channel(it.address, options=unlimited) as channel:
            large = b'{"node": "' + b"x" * (16 * MESSAGE_BYTES) + b'"}'
            for method in ("Register", "Attend", "Beat"):
                assert await status_of(channel, method, large, ()) == "UNAUTHENTICATED"
            metadata = ((TOKEN_KEY, TOKEN),)
            given = await status_of(channel, "Register", large, metadata)
            assert given == "RESOURCE_EXHAUSTED"

    run(scenario)


def test_the_port_is_open_on_the_one_address_only() -> None:
    async def scenario(it: Served) -> None:
        for host in ("127.0.0.2", "127.1.2.3"):
            with pytest.raises(ConnectionRefusedError):
                connect(it, host=host)
        connect(it).close()

    run(scenario)


def test_who_does_not_greet_or_call_is_closed() -> None:
    async def scenario(it: Served) -> None:
        with ExitStack() as stack:
            silent, half, greeted = (
                stack.enter_context(connect(it, first)) for first in (b"", b"PRI", _GREETING)
            )
            assert await asyncio.gather(*(is_closed(each, 3.0) for each in (silent, half)))
            assert await is_closed(greeted, 3.0)

    run(scenario, _STRICT)


def test_connections_over_the_limit_are_closed_and_a_node_comes_in_when_they_are_gone() -> None:
    async def scenario(it: Served) -> None:
        with ExitStack() as stack:
            ends = [stack.enter_context(connect(it, _GREETING)) for _ in range(30)]
            closed = await asyncio.gather(*(is_closed(each, 0.4) for each in ends))
            assert sum(closed) == 20
        # They are noticed to be gone a moment later; a node tries again for a minute.
        node, tries = it.client(), 0
        while it.master.job.state is JobState.GATHERING and tries < 50:
            tries += 1
            with suppress(MasterUnreachableError):
                await node.register(register(), timeout_s=1.0)
        assert it.master.job.state is JobState.RUNNING

    async def whole() -> None:
        async with served(_STRICT) as it:
            await scenario(it)

    asyncio.run(whole())


def test_a_flood_of_pings_is_cut() -> None:
    async def scenario(it: Served) -> None:
        with connect(it, _GREETING) as end:
            loop = asyncio.get_running_loop()
            await loop.sock_recv(end, 1 << 16)
            for _ in range(10):  # fewer than are too many
                await loop.sock_sendall(end, _PING)
            assert not await is_closed(end, 0.2)
            with suppress(ConnectionError):
                for _ in range(30):
                    await loop.sock_sendall(end, _PING)
            assert await is_closed(end, 0.5)

    run(scenario, _STRICT)


def test_metadata_over_the_limit_is_refused() -> None:
    async def scenario(it: Served) -> None:
        async with grpc.aio.insecure_channel(it.address) as channel:
            metadata = ((TOKEN_KEY, TOKEN), ("more", "x" * 4096))
            given = await status_of(channel, "Register", well_formed("Register"), metadata)
            assert given == "RESOURCE_EXHAUSTED"

    run(scenario, _STRICT)
