"""Nonsense on the lines between JVM, node and algorithm process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import ProtocolError
from headrace.framework.jvm_lines import decode_from_jvm
from headrace.framework.link_lines import (
    FromProcess,
    LookupLine,
    PublishLine,
    ReportLine,
    StopJobLine,
    decode_from_process,
    encode_line,
)
from headrace.framework.node.link_server import LinkServer
from tests.fuzzing import Usage, fuzz, pieces_of, with_patience

pytestmark = with_patience(20)

_RIGHT = (
    encode_line(ReportLine(values={"loss": 0.5}, rows_in=3, rows_out=1))
    + encode_line(PublishLine(key="k", value="v"))
    + encode_line(LookupLine(id=7, key="k", timeout_s=1.0))
    + encode_line(StopJobLine(reason="enough"))
)
_FROM_JVM = (
    b'{"type":"start","job_name":"j","role":"worker","index":0,"parallelism":1,'
    b'"host":"h","work_dir":"/w","spec_path":"/s","token":"the-secret-of-the-job"}'
)
_NONSENSE = st.one_of(
    st.binary(max_size=300),
    pieces_of(_RIGHT),
    st.sampled_from([b"[" * 100_000, b'{"type":"report","values":' * 3000, b"\n" * 1000, b""]),
)


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """What cannot be read is logged, which is not of interest here."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)


@fuzz(100)
@given(st.lists(_NONSENSE, max_size=6), st.data())
def test_a_node_takes_what_it_can_read_and_nothing_else(
    said: list[bytes], data: st.DataObject
) -> None:
    whole = b"\n".join(said) + b"\n" + _RIGHT
    asyncio.run(_serve(whole, data.draw(st.integers(1, 5000))))


async def _serve(whole: bytes, size: int) -> None:
    """Send it in pieces; require the lines in it that are right, in their order."""
    heard: list[FromProcess] = []
    broken: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: broken.append(about))
    ours, theirs = socket.socketpair()
    with theirs:
        server = LinkServer(ours, heard.append)
        for start in range(0, len(whole), size):
            theirs.sendall(whole[start : start + size])
            if start % (8 * size) == 0:
                await asyncio.sleep(0)
            server.drain()
        server.close()
    expected = [line for each in whole.split(b"\n")[:-1] for line in _readable(each)]
    assert heard == expected
    assert heard[-4:] == [line for each in _RIGHT.splitlines() for line in _readable(each)]
    assert broken == []


def _readable(line: bytes) -> list[FromProcess]:
    try:
        return [decode_from_process(line)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []


def test_a_line_without_an_end_ends_the_connection_and_not_the_memory() -> None:
    async def scenario() -> None:
        ours, theirs = socket.socketpair()
        before = Usage.of(os.getpid())
        with theirs:
            server = LinkServer(ours, lambda _: None)
            theirs.settimeout(5.0)
            with pytest.raises(ConnectionError):
                _send_much(theirs, server)
            server.close()
        before.require_same(os.getpid(), more_mib=32, more_files=0, more_threads=0)

    asyncio.run(scenario())


def _send_much(end: socket.socket, server: LinkServer) -> None:
    for _ in range(1024):  # 64 MiB
        end.sendall(b"x" * (1 << 16))
        server.drain()


@fuzz(200)
@given(st.one_of(st.binary(max_size=300), pieces_of(_FROM_JVM)))
def test_a_line_of_the_jvm_is_read_or_refused_and_never_shown(line: bytes) -> None:
    told = ""
    try:
        decode_from_jvm(line)
    except ProtocolError as error:
        told = str(error)
    assert "the-secret-of-the-job" not in told
