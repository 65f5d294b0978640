"""A node's end of the RPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec

from headrace.errors import ConfigError
from headrace.framework.messages import (
    Ack,
    Attend,
    Beat,
    Directive,
    Lookup,
    LookupReply,
    NodeRequest,
    Publish,
    Register,
    RegisterReply,
    ReportEnd,
    StopJob,
)
from headrace.framework.rpc.library import grpc
from headrace.framework.rpc.protocol import (
    MESSAGE_BYTES,
    SERVICE,
    TOKEN_KEY,
    MasterUnreachableError,
    RefusedError,
    StaleAttemptError,
    UnknownNodeError,
)
from headrace.framework.rpc.tls import Identity

__all__ = ["MasterClient"]

_Reply = TypeVar("_Reply")
_ENCODER = msgspec.json.Encoder()
_DIRECTIVES: msgspec.json.Decoder[Directive] = msgspec.json.Decoder(Directive)
_OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5000),  # this one also bounds a connection attempt
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
)


class MasterClient:
    """Calls of a node to the master: one method per message, each with a deadline in seconds.

    Thread model: belongs to one asyncio loop. Every method raises `MasterUnreachableError` (try
    again), `StaleAttemptError`, `UnknownNodeError` (register first) or `RefusedError` (for
    good).

    Args:
        address: "host:port".
        token: The job's secret.
        silence_s: A connection on which the master has not answered a ping for so long, in
            seconds, is broken; it is pinged as often.
        identity: For TLS in both directions; None speaks plain text. There is no third way: a
            master without TLS is unreachable with it.
        tls_name: A name in the master's certificate, from whoever told the address.

    Raises:
        ConfigError: Only one of `identity` and `tls_name` is given.
    """

    def __init__(
        self,
        address: str,
        token: str,
        *,
        silence_s: float = 10.0,
        identity: Identity | None = None,
        tls_name: str | None = None,
    ) -> None:
        _require_same(identity, tls_name)
        silence_ms = int(silence_s * 1000)
        pings = (
            ("grpc.keepalive_time_ms", silence_ms),
            ("grpc.keepalive_timeout_ms", silence_ms),
            ("grpc.http2.ping_timeout_ms", silence_ms),  # counts while the node sends beats
        )
        options: list[tuple[str, Any]] = [*_OPTIONS, *pings]
        if identity is None:
            self._channel = grpc.aio.insecure_channel(address, options=options)
        else:
            # A node dials an address that no certificate names: as Flink's own internal TLS, it
            # asks who has issued the certificate, not where the peer is (ADR 0115).
            options.append(("grpc.ssl_target_name_override", tls_name))
            self._channel = grpc.aio.secure_channel(
                address, identity.channel_credentials(), options=options
            )
        self._metadata = ((TOKEN_KEY, token),)
        self._methods: dict[str, Any] = {}

    async def register(self, request: Register, *, timeout_s: float) -> RegisterReply:
        """Take part in the cluster. Safe to repeat."""
        return await self._call("Register", request, RegisterReply, timeout_s)

    async def report_end(self, request: ReportEnd, *, timeout_s: float) -> None:
        """Tell how the process has ended. Safe to repeat."""
        await self._call("ReportEnd", request, Ack, timeout_s)

    async def publish(self, request: Publish, *, timeout_s: float) -> None:
        """Make a value known. Safe to repeat."""
        await self._call("Publish", request, Ack, timeout_s)

    async def lookup(self, request: Lookup, *, timeout_s: float) -> str | None:
        """Wait for a value, as long as the request says; None if it did not come."""
        reply = await self._call("Lookup", request, LookupReply, timeout_s)
        return reply.value

    async def stop_job(self, request: StopJob, *, timeout_s: float) -> None:
        """Ask to end the job with success. Safe to repeat."""
        await self._call("StopJob", request, Ack, timeout_s)

    async def attend(self, request: Attend) -> AsyncIterator[Directive]:
        """Yield what the node is to do until the stream breaks; no deadline, beats watch it.

        Returns normally when the master ends the stream.
        """
        call = self._channel.unary_stream(f"/{SERVICE}/Attend")(
            _ENCODER.encode(request), metadata=self._metadata
        )
        try:
            async for data in call:
                yield _DIRECTIVES.decode(data)
        except grpc.aio.AioRpcError as exc:
            raise _translated(exc) from exc
        finally:
            call.cancel()

    async def beat(self, beats: AsyncIterator[Beat]) -> None:
        """Send heartbeats as they come, until the stream breaks; no deadline.

        One stream for all of them: a message on it costs less than half of a call. Returns
        normally when `beats` ends. A beat that meets a stream which the master has just ended
        raises `MasterUnreachableError` whatever the reason; the next registration tells it.
        """
        call = self._channel.stream_unary(f"/{SERVICE}/Beat")(metadata=self._metadata)
        try:
            async for each in beats:
                await call.write(_ENCODER.encode(each))
            await call.done_writing()
            await call
        except asyncio.InvalidStateError:  # the call has ended: its status says why
            await _raise_status(call)
        except grpc.aio.AioRpcError as exc:
            raise _translated(exc) from exc
        finally:
            call.cancel()

    async def close(self) -> None:
        """End every call and the connection. Safe to repeat."""
        await self._channel.close()

    async def _call(
        self, name: str, request: NodeRequest, kind: type[_Reply], timeout_s: float
    ) -> _Reply:
        method = self._methods.get(name)
        if method is None:
            method = self._methods[name] = self._channel.unary_unary(f"/{SERVICE}/{name}")
        try:
            data = await method(
                _ENCODER.encode(request), timeout=timeout_s, metadata=self._metadata
            )
        except grpc.aio.AioRpcError as exc:
            raise _translated(exc) from exc
        except grpc.aio.UsageError as exc:
            msg = f"The connection is closed: {exc}"
            raise MasterUnreachableError(msg) from exc
        return msgspec.json.decode(data, type=kind)


def _require_same(identity: Identity | None, tls_name: str | None) -> None:
    if (identity is None) == (tls_name is None):
        return
    here, there = ("off", "on") if identity is None else ("on", "off")
    msg = (
        f"`security.ssl.internal.enabled` is {here} for the TaskManager of this node and "
        f"{there} for that of the master. It must be the same for every TaskManager."
    )
    raise ConfigError(msg)


async def _raise_status(call: grpc.aio.StreamUnaryCall[Any, Any]) -> None:
    try:
        await call
    except grpc.aio.AioRpcError as exc:
        raise _translated(exc) from exc


def _translated(exc: grpc.aio.AioRpcError) -> Exception:
    """Return our error for a gRPC status."""
    details = exc.details() or ""
    code = exc.code()
    if code is grpc.StatusCode.FAILED_PRECONDITION and details.isdecimal():
        return StaleAttemptError(int(details))
    if code is grpc.StatusCode.NOT_FOUND:
        return UnknownNodeError(details)
    if code in (
        grpc.StatusCode.UNAUTHENTICATED,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.UNIMPLEMENTED,
    ):
        return RefusedError(f"The master refuses the call: {code.name}: {details}")
    return MasterUnreachableError(f"{code.name}: {details}")
