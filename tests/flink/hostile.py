"""Clients that mean harm, or know no better: bytes for a port or a Unix socket."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import grpc

from headrace.framework.rpc.protocol import MESSAGE_BYTES, SERVICE, TOKEN_KEY

METHODS = ("Register", "Attend", "Beat", "ReportEnd", "Publish", "Lookup", "StopJob")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
_CALL_S = 10.0

Connect = Callable[[], socket.socket]


def to_port(address: tuple[str, int]) -> Connect:
    """Return what connects to a TCP port."""
    return lambda: socket.create_connection(address, timeout=_CALL_S)


def to_socket(path: str) -> Connect:
    """Return what connects to a Unix socket."""

    def connect() -> socket.socket:
        client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            client.connect(path)  # without a limit: a connection waits for room in the queue
        except OSError:
            client.close()
            raise
        client.settimeout(_CALL_S)
        return client

    return connect


def send(connect: Connect, data: bytes) -> None:
    """Send bytes, take what comes back, close. That the other side closes first is no error."""
    with connect() as client, suppress(ConnectionError, TimeoutError):
        client.sendall(data)
        client.settimeout(0.05)
        client.recv(1 << 16)


@contextmanager
def held(connect: Connect, count: int, first: bytes = b"") -> Iterator[None]:
    """Hold connections on which nothing more is said, or that the other side has closed."""
    with ExitStack() as stack:
        for _ in range(count):
            client = stack.enter_context(connect())
            with suppress(ConnectionError):
                client.sendall(first)
        yield


def bytes_for_a_port(seed: int, call: bytes) -> Iterator[bytes]:
    """Yield what is no call, or only a part of one.

    Args:
        seed: Of what is random.
        call: The bytes of a whole call.
    """
    chance = random.Random(seed)
    yield from (chance.randbytes(1 << chance.randrange(18)) for _ in range(20))
    yield b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(500)
    yield _PREFACE + chance.randbytes(2000)
    yield _PREFACE + b"\xff\xff\xff\x00\0\0\0\0\x01" + b"x" * 100_000
    yield from (call[: chance.randrange(len(call))] for _ in range(20))
    yield from [call] * 20
    for _ in range(20):
        damaged = bytearray(call)
        damaged[chance.randrange(len(call))] ^= 1 << chance.randrange(8)
        yield bytes(damaged)


def bytes_for_a_queue(seed: int) -> Iterator[bytes]:
    """Yield frames that a process would not send like this, and what is no frame."""
    chance = random.Random(seed)
    hello = frame(1, 1, b'{"attempt": 1, "pid": 1}')
    yield from (chance.randbytes(1 << chance.randrange(18)) for _ in range(20))
    yield struct.pack("<IIq", 4, 0xFFFFFFFF, 0)
    yield frame(4, 0, struct.pack("<II", 64, 1))
    yield frame(11, 0)
    yield frame(1, 2**40, b"{}")
    yield frame(1, 1, b"not JSON")
    yield from (hello[: chance.randrange(1, len(hello))] for _ in range(10))
    yield hello + chance.randbytes(1000)
    yield hello + frame(10, 2**63 - 1)
    yield frame(1, 1, b"\0" * (1 << 20))


def frame(kind: int, value: int, payload: bytes = b"") -> bytes:
    """Return a frame of the memory queue; docs/exchange.md section 3."""
    return struct.pack("<IIq", kind, len(payload), value) + payload


def status_of_call(
    address: str,
    method: str,
    token: str | None,
    data: bytes = b"{}",
    channel: grpc.Channel | None = None,
) -> str:
    """Call the master; return the name of the status that the call ends with.

    In plain text without a `channel`, which is closed afterwards.
    """
    metadata = () if token is None else ((TOKEN_KEY, token),)
    if channel is None:
        unlimited = [("grpc.max_send_message_length", -1)]
        channel = grpc.insecure_channel(address, options=unlimited)
    with channel as at:
        path = f"/{SERVICE}/{method}"
        try:
            if method == "Attend":
                list(at.unary_stream(path)(data, metadata=metadata, timeout=_CALL_S))
            elif method == "Beat":
                at.stream_unary(path)(iter([data]), metadata=metadata, timeout=_CALL_S)
            else:
                at.unary_unary(path)(data, metadata=metadata, timeout=_CALL_S)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "OK"


def oversized() -> bytes:
    """A message that is longer than any may be."""
    return b'{"node": "' + b"x" * (2 * MESSAGE_BYTES) + b'"}'


def record_call() -> bytes:
    """Return all bytes of a call with a wrong token, as the RPC library sends them."""
    listener = socket.create_server(("127.0.0.1", 0))
    received = bytearray()

    def answer_first() -> None:
        with listener, listener.accept()[0] as server:
            server.sendall(_EMPTY_SETTINGS)
            server.settimeout(_CALL_S)
            while b'"attempt"' not in received:
                received.extend(server.recv(1 << 16))

    thread = threading.Thread(target=answer_first)
    thread.start()
    port = listener.getsockname()[1]
    body = b'{"node": "worker-0", "instance": "x", "attempt": 1}'
    assert status_of_call(f"127.0.0.1:{port}", "StopJob", "wrong", body) == "UNAVAILABLE"
    thread.join()
    return bytes(received)
