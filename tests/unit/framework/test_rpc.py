"""The RPC: what is refused, and that garbage on the port does no harm."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from headrace.config import TimeoutConfig
from headrace.errors import ConfigError
from headrace.framework.clock import SystemClock
from headrace.framework.failure import Failure
from headrace.framework.jvm_lines import StatusLine, ToJvm
from headrace.framework.machine import (
    ALL_FINISH,
    JobMachine,
    JobState,
    MasterStarted,
    ProcessFailed,
    ProcessState,
    RoleFacts,
)
from headrace.framework.master.master import Master
from headrace.framework.master.service import NodeService
from headrace.framework.messages import (
    Attend,
    Beat,
    Directive,
    Lookup,
    Publish,
    Register,
    ReportEnd,
    StartProcess,
    StopJob,
)
from headrace.framework.rpc.client import MasterClient
from headrace.framework.rpc.limits import ServerLimits
from headrace.framework.rpc.protocol import (
    MESSAGE_BYTES,
    MasterUnreachableError,
    RefusedError,
    StaleAttemptError,
    UnknownNodeError,
)
from headrace.framework.rpc.server import MasterServer
from headrace.framework.rpc.tls import Identity
from headrace.framework.status import JobStatus

TOKEN = "secret"


class Served:
    """A master with one worker's role, served on a port, and clients of it."""

    def __init__(
        self, *, identity: Identity | None = None, limits: ServerLimits | None = None
    ) -> None:
        job = ALL_FINISH.initial_job(
            {"worker": RoleFacts(planned_parallelism=1)}, max_restarts=3
        )
        self.lines: list[ToJvm] = []
        self.master = Master(
            machine=JobMachine(ALL_FINISH, job),
            timeouts=TimeoutConfig(),
            clock=SystemClock(),
            send=self.lines.append,
        )
        self.master.post(MasterStarted(attempt=1))
        service = NodeService(self.master)
        self.server = MasterServer(service, TOKEN, identity=identity, limits=limits)
        self.address = ""
        self._clients: list[MasterClient] = []

    def client(self, token: str = TOKEN, **tls: Any) -> MasterClient:
        client = MasterClient(self.address, token, **tls)
        self._clients.append(client)
        return client

    def last_status(self) -> JobStatus:
        return [line for line in self.lines if isinstance(line, StatusLine)][-1].status

    async def close(self) -> None:
        self.master.close()
        for client in self._clients:
            await client.close()
        await self.server.stop(0)


@asynccontextmanager
async def served() -> AsyncIterator[Served]:
    it = Served()
    it.address = await it.server.start("127.0.0.1")
    try:
        yield it
    finally:
        await it.close()


def register(attempt: int = 1, instance: str = "one") -> Register:
    return Register(
        node="worker-0",
        instance=instance,
        attempt=attempt,
        role="worker",
        index=0,
        parallelism=1,
        host="127.0.0.1",
    )


def run(scenario: Callable[[Served], Awaitable[None]]) -> None:
    async def whole() -> None:
        async with served() as it:
            await scenario(it)

    asyncio.run(whole())


def fail(it: Served) -> None:
    """Let the only process fail, so that the group restarts with attempt 2."""
    failure = Failure(kind="user_code", message="boom")
    it.master.post(ProcessFailed(attempt=1, node="worker-0", instance="one", failure=failure))
    assert it.master.job.attempt == 2


@pytest.mark.parametrize("token", ["", "secres", "secret2"])
def test_another_token_is_refused_and_changes_nothing(token: str) -> None:
    async def scenario(it: Served) -> None:
        client = it.client(token)
        with pytest.raises(RefusedError, match="UNAUTHENTICATED"):
            await client.register(register(), timeout_s=5)
        with pytest.raises((RefusedError, MasterUnreachableError)):
            await client.beat(beats(Beat(node="w", instance="i", attempt=1)))
        with pytest.raises(RefusedError, match="UNAUTHENTICATED"):
            await anext_of(client, Attend(node="w", instance="i", attempt=1))
        assert it.master.job.state is JobState.GATHERING

    run(scenario)


def test_registering_twice_is_harmless_and_both_get_the_attempt() -> None:
    async def scenario(it: Served) -> None:
        for client in (it.client(), it.client()):
            reply = await client.register(register(), timeout_s=5)
            assert (reply.attempt, reply.heartbeat_every_s) == (1, 1.0)
        assert (it.master.job.state, it.master.job.restarts) == (JobState.RUNNING, 0)

    run(scenario)


def test_a_node_that_is_refused_leaves_the_values_of_the_rightful_one() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        rightful = msgspec.structs.replace(register(), rows_in=7, report={"loss": 0.5})
        await client.register(rightful, timeout_s=5)
        wrong = msgspec.structs.replace(
            register(instance="two"), parallelism=2, host="elsewhere", rows_in=1
        )
        await client.register(wrong, timeout_s=5)
        status = it.last_status()
        assert status.state == "FAILED"
        seen = status.nodes["worker-0"]
        assert (seen.host, seen.rows_in, seen.report) == ("127.0.0.1", 7, {"loss": 0.5})

    run(scenario)


def test_the_last_status_of_a_job_that_a_registration_ends_has_its_values() -> None:
    async def scenario(it: Served) -> None:
        ended = msgspec.structs.replace(
            register(), process=ProcessState.FINISHED, process_attempt=1, rows_in=7
        )
        await it.client().register(ended, timeout_s=5)
        status = it.last_status()
        assert (status.state, status.nodes["worker-0"].rows_in) == ("FINISHED", 7)

    run(scenario)


def test_a_stream_that_is_opened_again_begins_with_the_present_directive() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)
        attend = Attend(node="worker-0", instance="one", attempt=1)
        start = StartProcess(attempt=1, cluster={"worker": ("127.0.0.1",)})
        assert await anext_of(client, attend) == start
        assert await anext_of(client, attend) == start
        fail(it)
        assert (await anext_of(client, attend)).attempt == 2

    run(scenario)


def test_requests_of_an_older_attempt_are_refused_with_the_present_one() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)
        fail(it)
        who: dict[str, Any] = {"node": "worker-0", "instance": "one"}
        calls: list[Awaitable[object]] = [
            client.register(register(attempt=1), timeout_s=5),
            client.report_end(
                ReportEnd(attempt=1, outcome=ProcessState.FINISHED, **who), timeout_s=5
            ),
            client.publish(Publish(attempt=1, key="k", value="v", **who), timeout_s=5),
            client.lookup(Lookup(attempt=1, key="k", timeout_s=1, **who), timeout_s=5),
            client.stop_job(StopJob(attempt=1, reason="r", **who), timeout_s=5),
        ]
        for call in calls:
            with pytest.raises(StaleAttemptError) as caught:
                await call
            assert caught.value.attempt == 2
        assert it.master.job.state is JobState.RUNNING
        await client.beat(beats(Beat(attempt=1, rows_in=5, **who)))
        assert it.master.status.nodes["worker-0"].rows_in == 5

    run(scenario)


def test_a_wish_for_a_savepoint_is_in_the_status_and_ends_nobody() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)
        who: dict[str, Any] = {"node": "worker-0", "instance": "one", "attempt": 1}
        before = it.master.status
        assert before.savepoint_wish is None
        for reason in ("good enough", "still good"):
            stop = StopJob(reason=reason, with_savepoint=True, **who)
            await client.stop_job(stop, timeout_s=5)
        assert it.master.status.savepoint_wish == "worker-0 asked to stop: good enough"
        assert it.master.job.state is JobState.RUNNING

    run(scenario)


def test_a_wish_ends_with_its_attempt() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)

        async def wish(attempt: int, reason: str) -> None:
            await client.stop_job(
                StopJob(
                    node="worker-0",
                    instance="one",
                    attempt=attempt,
                    reason=reason,
                    with_savepoint=True,
                ),
                timeout_s=5,
            )

        await wish(1, "good enough")
        fail(it)
        assert it.master.status.savepoint_wish is None
        with pytest.raises(StaleAttemptError):
            await wish(1, "good enough")
        assert it.master.status.savepoint_wish is None
        await wish(2, "good again")
        assert it.master.status.savepoint_wish == "worker-0 asked to stop: good again"

    run(scenario)


def test_a_lookup_ends_when_its_attempt_ends() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)
        request = Lookup(node="worker-0", instance="one", attempt=1, key="k", timeout_s=60)
        waiting = asyncio.ensure_future(client.lookup(request, timeout_s=60))
        while not it.master.rendezvous._waiting:  # noqa: ASYNC110 - it knows no event
            await asyncio.sleep(0.001)
        fail(it)
        with pytest.raises(StaleAttemptError):
            await waiting

    run(scenario)


def test_a_lookup_gets_the_value_that_is_published_later_and_ends_in_time_without() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)
        who: dict[str, Any] = {"node": "worker-0", "instance": "one", "attempt": 1}
        wait = client.lookup(Lookup(key="k", timeout_s=10, **who), timeout_s=15)
        waiting = asyncio.ensure_future(wait)
        await client.publish(Publish(key="k", value="v", **who), timeout_s=5)
        assert await waiting == "v"
        nothing = Lookup(key="other", timeout_s=0.01, **who)
        assert await client.lookup(nothing, timeout_s=5) is None

    run(scenario)


def test_a_node_process_that_is_not_registered_must_register_first() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)
        who: dict[str, Any] = {"node": "worker-0", "instance": "another", "attempt": 1}
        with pytest.raises(UnknownNodeError):
            await client.publish(Publish(key="k", value="v", **who), timeout_s=5)
        with pytest.raises(UnknownNodeError):
            await anext_of(client, Attend(**who))
        with pytest.raises((UnknownNodeError, MasterUnreachableError)):
            await client.beat(beats(Beat(**who)))

    run(scenario)


def test_calls_that_the_end_of_the_server_ends_write_no_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        it = Served()
        it.address = await it.server.start("127.0.0.1")
        await it.client().register(register(), timeout_s=5)
        clients = [it.client() for _ in range(10)]
        streams = [asyncio.ensure_future(client.beat(endless_beats())) for client in clients]
        while it.master.status.nodes["worker-0"].rows_in < 100:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        it.master.close()
        await it.server.stop(0)
        for stream in streams:
            stream.add_done_callback(lambda it: it.cancelled() or it.exception())

    asyncio.run(scenario())
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []


def test_random_bytes_on_the_port_do_no_harm() -> None:
    async def scenario(it: Served) -> None:
        port = int(it.address.rpartition(":")[2])
        for data in (b"\0" * 1000, b"GET / HTTP/1.1\r\n\r\n", bytes(range(256)) * 40):
            with socket.create_connection(("127.0.0.1", port), 5) as end:
                end.sendall(data)
        await it.client().register(register(), timeout_s=5)
        assert it.master.job.state is JobState.RUNNING

    run(scenario)


def test_messages_that_cannot_be_read_are_refused() -> None:
    async def scenario(it: Served) -> None:
        from headrace.framework.rpc.library import grpc
        from headrace.framework.rpc.protocol import SERVICE, TOKEN_KEY

        async with grpc.aio.insecure_channel(it.address) as channel:
            for data in (b"", b"\xff\xfe", b"{}", b'{"node": 1}', b"[" * 100_000):
                call = channel.unary_unary(f"/{SERVICE}/Register")
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call(data, metadata=((TOKEN_KEY, TOKEN),), timeout=5)
                assert caught.value.code() in (
                    grpc.StatusCode.INVALID_ARGUMENT,
                    grpc.StatusCode.INTERNAL,
                )
        assert it.master.job.state is JobState.GATHERING

    run(scenario)


def test_a_message_over_the_limit_is_refused_and_the_next_one_is_served() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        await client.register(register(), timeout_s=5)
        who: dict[str, Any] = {"node": "worker-0", "instance": "one", "attempt": 1}
        large = Publish(key="k", value="x" * (MESSAGE_BYTES + 1), **who)
        with pytest.raises(RefusedError, match="RESOURCE_EXHAUSTED"):
            await client.publish(large, timeout_s=5)
        await client.publish(Publish(key="k", value="v", **who), timeout_s=5)

    run(scenario)


def test_nobody_at_the_address_is_told_as_unreachable() -> None:
    async def scenario() -> None:
        client = MasterClient("127.0.0.1:1", TOKEN)
        try:
            with pytest.raises(MasterUnreachableError):
                await client.register(register(), timeout_s=0.5)
        finally:
            await client.close()

    asyncio.run(scenario())


def test_a_host_that_is_not_of_this_machine_is_a_clear_error() -> None:
    async def scenario() -> None:
        it = Served()
        with pytest.raises(ConfigError, match=r"cannot listen on '203.0.113.1'"):
            await it.server.start("203.0.113.1")
        await it.close()

    asyncio.run(scenario())


async def endless_beats() -> AsyncIterator[Beat]:
    for rows in range(1_000_000):
        yield Beat(node="worker-0", instance="one", attempt=1, rows_in=rows)
        await asyncio.sleep(0.001)


async def beats(*given: Beat) -> AsyncIterator[Beat]:
    for beat in given:
        yield beat


async def anext_of(client: MasterClient, request: Attend) -> Directive:
    """Return the first directive of a new stream, and end it."""
    stream = client.attend(request)
    try:
        return await asyncio.wait_for(stream.__anext__(), 5)
    finally:
        await stream.aclose()  # type: ignore[attr-defined]
