"""Nonsense for the master: a real process, with what strangers send; and messages of nodes."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc as grpc_library
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace._environ import copy_environment
from headrace.framework.jvm_lines import FailLine
from headrace.framework.rpc.client import MasterClient
from headrace.framework.rpc.library import grpc
from headrace.framework.rpc.protocol import SERVICE, TOKEN_KEY
from headrace.framework.spec import MasterSpec, PlannedRole, encode_spec
from tests.flink.hostile import record_call
from tests.fuzzing import (
    PREFACE,
    Usage,
    fuzz,
    http2_connections,
    http2_frame,
    pieces_of,
    talk,
    with_patience,
)

from .test_rpc import TOKEN, Served, fail, register
from .test_rpc_strangers import METHODS, status_of, well_formed

pytestmark = with_patience(120)
_CALL_S = 5.0
_KNOWN = ((TOKEN_KEY, TOKEN),)
_PING = b"12345678"
_MUCH_BYTES = 64 << 20  # four times what it may grow by
_SRC = Path(__file__).resolve().parents[3] / "src"


@dataclass(slots=True)
class Master:
    """A master process of a job with one worker, and what it held before the nonsense."""

    popen: subprocess.Popen[bytes]
    address: str
    before: Usage = field(init=False)

    def __post_init__(self) -> None:
        for data in (b"", b"GET / HTTP/1.1\r\n\r\n", bytes(1000)) * 10:
            self.send(data)  # the library makes its threads and pools once
        self.before = Usage.of(self.popen.pid)

    def send(self, data: bytes) -> None:
        talk(self.connect(), data)

    def connect(self) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        return socket.create_connection((host, int(port)), timeout=_CALL_S)

    def require_well(self, *, more_mib: int = 24) -> None:
        """Require that it holds what it held before, and lets in a node with the token."""
        assert self.popen.poll() is None
        self.before.require_same(
            self.popen.pid, more_mib=more_mib, more_files=4, more_threads=4
        )
        asyncio.run(self._register())

    async def _register(self) -> None:
        client = MasterClient(self.address, TOKEN)
        try:
            assert (await client.register(register(), timeout_s=_CALL_S)).attempt == 1
        finally:
            await client.close()


@pytest.fixture
def master(tmp_path: Path) -> Iterator[Master]:
    role = PlannedRole(planned_parallelism=1)
    spec = MasterSpec(job_name="fuzzed", roles={"worker": role})
    (tmp_path / "spec.json").write_bytes(encode_spec(spec))
    start = {
        "type": "start",
        "job_name": "fuzzed",
        "role": "am",
        "index": 0,
        "parallelism": 1,
        "host": "127.0.0.1",
        "work_dir": str(tmp_path),
        "token": TOKEN,
        "spec_path": str(tmp_path / "spec.json"),
    }
    with (tmp_path / "log").open("wb") as log:
        popen = subprocess.Popen(
            [sys.executable, "-m", "headrace.framework.master"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**copy_environment(), "PYTHONPATH": str(_SRC)},
        )
    with popen:
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdin.write(json.dumps(start).encode() + b"\n")
        popen.stdin.flush()
        try:
            yield Master(popen, json.loads(popen.stdout.readline())["address"])
            written = (tmp_path / "log").read_text()
            assert "headrace/framework" not in written, "a traceback through code of ours"
            popen.stdin.close()
            rest = [json.loads(line) for line in popen.stdout]
            assert popen.wait(5) == 0
        except BaseException:
            popen.kill()
            raise
    states = {line["status"]["state"] for line in rest if line["type"] == "status"}
    assert states <= {"GATHERING", "RUNNING"}, "somebody was let in"


def test_bytes_of_strangers_do_the_master_no_harm(master: Master) -> None:
    call = record_call()  # with a wrong token

    @fuzz(120)
    @given(st.one_of(http2_connections(), pieces_of(call)))
    def send(data: bytes) -> None:
        master.send(data)

    send()
    master.require_well()


def _send_frames(master: Master) -> int:
    """Send HTTP/2 frames that mean nothing; the answer to a ping shows that all were read."""
    whole = (
        PREFACE + 60 * http2_frame(0xBE, payload=bytes(16_384)) + http2_frame(6, payload=_PING)
    )
    with master.connect() as end:
        end.sendall(whole)
        said = b""
        while http2_frame(6, flags=1, payload=_PING) not in said:
            came = end.recv(1 << 16)
            assert came, "the connection was closed"
            said = said[-64:] + came
    return len(whole)


def _send_metadata(master: Master) -> int:
    """Call without the token, each time with a long text beside it."""
    with grpc_library.insecure_channel(master.address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Publish")
        calls = [
            call.future(b"", metadata=(("authorization", f"{i:07}" * 1000),), timeout=_CALL_S)
            for i in range(100)
        ]
        codes = {each.code() for each in calls}
    assert codes == {grpc_library.StatusCode.UNAUTHENTICATED}
    return 100 * 7000


def _send_messages(master: Master) -> int:
    """Call with the token, but with messages that cannot be read."""
    message = b'{"node": "' + b"x" * (1 << 17)
    with grpc_library.insecure_channel(master.address) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Publish")
        for _ in range(8):
            with pytest.raises(grpc_library.RpcError) as caught:
                call(message, metadata=_KNOWN, timeout=_CALL_S)
            assert caught.value.code() is grpc_library.StatusCode.INVALID_ARGUMENT
    return 8 * len(message)


@pytest.mark.parametrize("send", [_send_frames, _send_metadata, _send_messages])
def test_the_master_keeps_nothing_of_what_it_refuses(
    master: Master, send: Callable[[Master], int]
) -> None:
    for _ in range(8):  # what the library and the allocator make room for once
        send(master)
    master.before = Usage.of(master.popen.pid)
    sent_bytes = 0
    while sent_bytes < _MUCH_BYTES:
        sent_bytes += send(master)
    master.require_well(more_mib=16)


def test_no_metadata_but_the_token_lets_anybody_in(master: Master) -> None:
    text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200)
    near = st.sampled_from([TOKEN[:-1], TOKEN + " ", TOKEN * 2, f'"{TOKEN}"', TOKEN.upper()])
    name = st.sampled_from([TOKEN_KEY, TOKEN_KEY + "2", "authorization", "cookie"])
    entry = st.tuples(name, st.one_of(text, near))
    data = st.one_of(st.binary(max_size=100), st.sampled_from([*map(well_formed, METHODS)]))
    with grpc_library.insecure_channel(master.address) as channel:

        @fuzz(100)
        @given(st.sampled_from([*METHODS, "", "x/y"]), st.lists(entry, max_size=5), data)
        def call(method: str, metadata: list[tuple[str, str]], data: bytes) -> None:
            path = f"/{SERVICE}/{method}"
            with pytest.raises(grpc_library.RpcError) as caught:
                channel.unary_unary(path)(data, metadata=metadata, timeout=_CALL_S)
            assert caught.value.code() is grpc_library.StatusCode.UNAUTHENTICATED

        call()
    master.require_well()


_JUNK = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(1 << 70), 1 << 70),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_RIGHT = {
    "node": st.sampled_from(["worker-0", "worker-1", "x-0", ""]),
    "instance": st.sampled_from(["one", "two", ""]),
    "attempt": st.integers(-1, 3),
    "role": st.sampled_from(["worker", "x"]),
    "index": st.integers(-1, 2),
    "parallelism": st.integers(-1, 2),
    "host": st.sampled_from(["127.0.0.1", "", "::1"]),
    "port": st.one_of(st.none(), st.integers(-1, 70_000)),
    "process": st.sampled_from(["none", "running", "finished", "failed", "stopped", "x"]),
    "process_attempt": st.one_of(st.none(), st.integers(-1, 3)),
    "process_life": st.integers(-1, 2),
    "ending_reason": st.one_of(st.none(), st.text(max_size=5)),
    "life": st.integers(-1, 2),
    "outcome": st.sampled_from(["finished", "failed", "stopped", "running", "x"]),
    "key": st.text(max_size=5),
    "value": st.text(max_size=5),
    "timeout_s": st.sampled_from([-1e308, -1.0, 0.0, 0.001]),
    "reason": st.text(max_size=5),
    "report": st.dictionaries(st.text(max_size=3), st.floats(allow_nan=False), max_size=2),
}
_WORDS = {"timeout_s": _RIGHT["timeout_s"] | st.text(max_size=3)}  # a long wait is no nonsense
_ANY = {key: _RIGHT[key] | _JUNK for key in _RIGHT} | _WORDS
_FIELDS = st.fixed_dictionaries({}, optional=_ANY)
_ALMOST = st.fixed_dictionaries(dict(_RIGHT))
_MESSAGES = st.one_of(
    _ALMOST.map(lambda fields: json.dumps(fields).encode()),
    _FIELDS.map(lambda fields: json.dumps(fields).encode()),
    st.binary(max_size=100),
    st.sampled_from(
        [b"[" * 100_000, b'{"node":' * 5_000, b'"' + b"\\u0000" * 1000, b"1" * 9999]
    ),
)
_SAID = {"OK", "INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION"}


@fuzz(40)
@given(st.lists(st.tuples(st.sampled_from(METHODS), _MESSAGES), min_size=1, max_size=12))
def test_messages_with_the_token_are_taken_or_refused_but_break_nothing(
    calls: list[tuple[str, bytes]],
) -> None:
    async def scenario(it: Served) -> None:
        async with grpc.aio.insecure_channel(it.address) as channel:
            for method, data in calls:
                before = it.master.job
                wait_s = 0.2 if method == "Attend" else _CALL_S
                given = await status_of(channel, method, data, _KNOWN, timeout_s=wait_s)
                if method == "Attend" and given == "DEADLINE_EXCEEDED":
                    continue  # a stream without a directive so far
                assert given in _SAID, (method, data)
                if given != "OK":
                    assert it.master.job == before
        broken = [
            line.message
            for line in it.lines
            if isinstance(line, FailLine) and "state machine failed" in line.message
        ]
        assert broken == []
        reply = await it.client().register(register(), timeout_s=_CALL_S)
        assert reply.attempt == it.master.job.attempt

    run(scenario)


@fuzz(40)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(METHODS),
            st.sampled_from(["one", "zero"]),  # who was replaced, and who never was here
            st.integers(-1, 1),
            st.sampled_from(["worker-0", "worker-1"]),
        ),
        min_size=1,
        max_size=10,
    )
)
def test_what_is_replayed_of_an_older_attempt_or_process_changes_nothing(
    calls: list[tuple[str, str, int, str]],
) -> None:
    async def scenario(it: Served) -> None:
        await it.client().register(register(), timeout_s=_CALL_S)
        fail(it)
        second = msgspec.structs.replace(register(), instance="two", attempt=2)
        await it.client().register(second, timeout_s=_CALL_S)
        before, seen = it.master.job, it.master.status
        async with grpc.aio.insecure_channel(it.address) as channel:
            for method, instance, attempt, node in calls:
                data = json.loads(well_formed(method))
                data.update(node=node, instance=instance, attempt=attempt)
                message = json.dumps(data).encode()
                given = await status_of(channel, method, message, _KNOWN)
                assert given in ("NOT_FOUND", "FAILED_PRECONDITION")
        assert it.master.job == before
        assert it.master.status == seen

    run(scenario)


def run(scenario: Callable[[Served], Awaitable[None]]) -> None:
    async def whole() -> None:
        it: Any = Served()
        it.address = await it.server.start("127.0.0.1")
        try:
            await scenario(it)
        finally:
            await it.close()

    asyncio.run(whole())
