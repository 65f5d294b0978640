"""The master's end of the RPC."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import msgspec

from headrace.errors import ConfigError
from headrace.framework.address import join_address
from headrace.framework.messages import (
    Ack,
    Attend,
    Beat,
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
from headrace.framework.rpc.limits import ServerLimits
from headrace.framework.rpc.protocol import (
    SERVICE,
    TOKEN_KEY,
    StaleAttemptError,
    UnknownNodeError,
)
from headrace.framework.rpc.tls import Identity

__all__ = ["MasterServer", "MasterService"]

_LOG = logging.getLogger(__name__)
_LIBRARY_LOG = logging.getLogger("grpc._cython.cygrpc")
_LIBRARY_LINES = 20
_Request = TypeVar("_Request", bound=NodeRequest)
_LAST_STEPS_S = 1.0


class MasterService(Protocol):
    """What the server turns calls into. Every method is called on the loop's thread.

    A method may raise `StaleAttemptError` (older attempt) and `UnknownNodeError` (not
    registered).
    """

    async def register(self, request: Register) -> RegisterReply:
        """Accept a node."""

    def attend(self, request: Attend) -> AsyncIterator[bytes]:
        """Yield encoded directives until the node goes."""

    def beat(self, request: Beat) -> None:
        """Note a sign of life."""

    async def report_end(self, request: ReportEnd) -> Ack:
        """Note the end of a process."""

    async def publish(self, request: Publish) -> Ack:
        """Keep a value."""

    async def lookup(self, request: Lookup) -> LookupReply:
        """Wait for a value."""

    async def stop_job(self, request: StopJob) -> Ack:
        """End the job."""


class MasterServer:
    """A gRPC server on a port of its own.

    Thread model: belongs to the asyncio loop that starts it.

    Args:
        service: Takes the calls.
        token: The job's secret. A call without it ends before its message is received.
        identity: For TLS in both directions; None speaks plain text.
        limits: What strangers, and nodes, may do.
    """

    def __init__(
        self,
        service: MasterService,
        token: str,
        *,
        identity: Identity | None = None,
        limits: ServerLimits | None = None,
    ) -> None:
        self._service = service
        self._identity = identity
        _LIBRARY_LOG.addFilter(_FEW_LINES)
        self._server = grpc.aio.server(options=_options(limits or ServerLimits()))
        handlers = grpc.method_handlers_generic_handler(SERVICE, self._methods())
        self._server.add_generic_rpc_handlers((_TokenGuard(token, handlers),))

    async def start(self, host: str) -> str:
        """Bind a free port of `host` alone and serve; return the address "host:port".

        Raises:
            ConfigError: The host has no address here that can be bound.
        """
        where = join_address(host, 0)
        try:
            if self._identity is None:
                port = self._server.add_insecure_port(where)
            else:
                credentials = self._identity.server_credentials()
                port = self._server.add_secure_port(where, credentials)
        except RuntimeError as exc:
            msg = (
                f"The master cannot listen on {host!r}: {exc}. The host is what Flink calls "
                "this TaskManager (`taskmanager.host`); it must be an address of this machine."
            )
            raise ConfigError(msg) from exc
        await self._server.start()
        return join_address(host, port)

    async def stop(self, grace_s: float) -> None:
        """Refuse new calls and end those that still run after `grace_s` seconds.

        Their tasks have ended then: the library writes a traceback for each that the end of
        the loop cancels.
        """
        await self._server.stop(grace_s)
        left = [task for task in asyncio.all_tasks() if _is_of_call(task)]
        if left:
            await asyncio.wait(left, timeout=_LAST_STEPS_S)

    def _methods(self) -> dict[str, grpc.RpcMethodHandler]:
        service = self._service
        return {
            "Register": self._unary(Register, service.register),
            "ReportEnd": self._unary(ReportEnd, service.report_end),
            "Publish": self._unary(Publish, service.publish),
            "Lookup": self._unary(Lookup, service.lookup),
            "StopJob": self._unary(StopJob, service.stop_job),
            "Attend": self._attend(),
            "Beat": self._beats(),
        }

    def _unary(
        self, kind: type[_Request], method: Callable[[_Request], Awaitable[object]]
    ) -> grpc.RpcMethodHandler:
        decoder = msgspec.json.Decoder(kind)
        encoder = msgspec.json.Encoder()

        async def call(data: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                return encoder.encode(await method(decoder.decode(data)))
            except Exception as exc:
                await _abort(context, exc)
                raise

        return grpc.unary_unary_rpc_method_handler(call)

    def _attend(self) -> grpc.RpcMethodHandler:
        decoder = msgspec.json.Decoder(Attend)

        async def call(
            data: bytes, context: grpc.aio.ServicerContext[Any, Any]
        ) -> AsyncIterator[bytes]:
            try:
                async for directive in self._service.attend(decoder.decode(data)):
                    yield directive
            except Exception as exc:  # noqa: BLE001 - turned into a status for the caller
                await _abort(context, exc)

        return grpc.unary_stream_rpc_method_handler(call)

    def _beats(self) -> grpc.RpcMethodHandler:
        decoder = msgspec.json.Decoder(Beat)

        async def call(
            beats: AsyncIterator[bytes], context: grpc.aio.ServicerContext[Any, Any]
        ) -> bytes:
            try:
                async for data in beats:
                    self._service.beat(decoder.decode(data))
            except Exception as exc:  # noqa: BLE001 - turned into a status for the caller
                await _abort(context, exc)
            return b"{}"

        return grpc.stream_unary_rpc_method_handler(call)


class _FewLines(logging.Filter):
    """Lets few lines of the library through, without their tracebacks.

    It writes them before a call is looked at, such as for a method or a name in the metadata
    that is no UTF-8: whoever reaches the port could fill the log with them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._left = _LIBRARY_LINES

    def filter(self, record: logging.LogRecord) -> bool:
        self._left -= 1
        if self._left == 0:
            record.msg, record.args = "no more lines of the RPC library are shown", ()
        record.exc_info = None
        return self._left >= 0


_FEW_LINES = _FewLines()


def _options(limits: ServerLimits) -> list[tuple[str, int]]:
    return [*limits.options(), ("grpc.so_reuseport", 0)]


class _TokenGuard(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Hands calls with the job's token on; all others end without having been read.

    Also those of methods that do not exist: a stranger learns nothing but that it is one.
    """

    def __init__(self, token: str, handlers: grpc.GenericRpcHandler) -> None:
        self._token = token.encode()
        self._handlers = handlers
        # As a stream of requests: the library would receive a single one before it calls.
        self._refusal = grpc.stream_stream_rpc_method_handler(_refuse)

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        """Return what takes the call; None if nothing does."""
        given = b""
        for key, value in handler_call_details.invocation_metadata or ():
            if key == TOKEN_KEY:
                given = value.encode() if isinstance(value, str) else value
        if not hmac.compare_digest(given, self._token):
            return self._refusal
        return self._handlers.service(handler_call_details)


async def _refuse(
    requests: AsyncIterator[bytes],  # noqa: ARG001 - the library's signature
    context: grpc.aio.ServicerContext[Any, Any],
) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")


def _is_of_call(task: asyncio.Task[Any]) -> bool:
    """Say whether the library runs this task for a call; only its name tells that."""
    return getattr(task.get_coro(), "__qualname__", None) == "_schedule_rpc_coro"


async def _abort(context: grpc.aio.ServicerContext[Any, Any], exc: Exception) -> None:
    """End the call with the status that tells the caller what to do."""
    if isinstance(exc, grpc.aio.BaseError):  # aborted before, or the server has stopped
        raise exc
    if isinstance(exc, StaleAttemptError):
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(exc.attempt))
    if isinstance(exc, UnknownNodeError):
        await context.abort(grpc.StatusCode.NOT_FOUND, str(exc))
    if isinstance(exc, msgspec.DecodeError | UnicodeDecodeError | RecursionError):
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"cannot read the message: {exc}")
    _LOG.exception("a call failed", exc_info=exc)
    await context.abort(grpc.StatusCode.INTERNAL, f"{type(exc).__name__}: {exc}")
