"""The line from an algorithm process to its node, against a socket that plays the node."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from headrace.errors import HeadraceError, UsageError, WaitTimeoutError
from headrace.framework.failure import Failure
from headrace.framework.link import ProcessLink
from headrace.framework.link_lines import (
    ErrorLine,
    FailedLine,
    FromNode,
    FromProcess,
    LookupLine,
    PublishLine,
    ReportLine,
    StopJobLine,
    ValueLine,
    decode_from_process,
    encode_line,
)


class FakeNode:
    """The node's end of the link; every read is bounded."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._end.settimeout(5)
        self._lines = end.makefile("rb")

    def read(self) -> FromProcess:
        return decode_from_process(self._lines.readline())

    def rest(self) -> list[FromProcess]:
        return [decode_from_process(line) for line in self._lines]

    def answer(self, line: FromNode) -> None:
        self._end.sendall(encode_line(line))

    def close(self) -> None:
        self._lines.close()
        self._end.close()


@pytest.fixture
def ends() -> Iterator[tuple[ProcessLink, FakeNode]]:
    ours, theirs = socket.socketpair()
    link, node = ProcessLink(ours), FakeNode(theirs)
    yield link, node
    link.close()
    node.close()


def test_every_message_arrives_as_it_was_given(ends: tuple[ProcessLink, FakeNode]) -> None:
    link, node = ends
    failure = Failure(kind="user_code", message='"ä"\n', is_restartable=False)
    link.publish("address", "host:1")
    link.stop_job("enough")
    link.stop_job("kept", with_savepoint=True)
    link.failed(failure)
    assert [node.read() for _ in range(4)] == [
        PublishLine(key="address", value="host:1"),
        StopJobLine(reason="enough"),
        StopJobLine(reason="kept", with_savepoint=True),
        FailedLine(failure=failure),
    ]


def test_of_many_reports_the_latest_always_leaves(ends: tuple[ProcessLink, FakeNode]) -> None:
    link, node = ends
    for step in range(1000):
        link.report({"loss": 1.0 / (step + 1)}, step, 2 * step)
    link.close()
    lines = node.rest()
    assert len(lines) < 100
    assert lines[-1] == ReportLine(
        values={"loss": 0.001}, rows_in=999, rows_out=1998, progress=1000
    )


def test_the_second_report_waits_for_nothing_either(ends: tuple[ProcessLink, FakeNode]) -> None:
    """The first one says that the process has begun; it may say one thing more, and be busy."""
    link, node = ends
    link.report({})
    link.report({"ready": 1.0})
    assert [node.read() for _ in range(2)] == [
        ReportLine(progress=1),
        ReportLine(values={"ready": 1.0}, progress=2),
    ]


def test_values_that_json_cannot_hold_are_left_out_and_numbers_of_any_kind_taken(
    ends: tuple[ProcessLink, FakeNode],
) -> None:
    link, node = ends
    link.report({"loss": float("nan"), "best": float("inf"), "step": True, "rate": 1})
    assert node.read() == ReportLine(values={"step": 1.0, "rate": 1.0}, progress=1)


@pytest.mark.parametrize(("text", "size_bytes"), [("x", 1), ("\N{SNOWMAN}", 3), ("\0", 6)])
def test_a_value_that_is_too_long_to_publish_is_refused_at_once(
    ends: tuple[ProcessLink, FakeNode], text: str, size_bytes: int
) -> None:
    link, node = ends
    value = text * ((1 << 20) // size_bytes)
    with pytest.raises(UsageError, match="at most 1048576"):
        link.publish("model", value)  # with the key it is over
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(node.read)
        link.publish("", value)
        assert read.result(5) == PublishLine(key="", value=value)


def test_a_report_that_was_held_back_leaves_before_the_next_message(
    ends: tuple[ProcessLink, FakeNode],
) -> None:
    link, node = ends
    link.report({"step": 1.0})
    link.report({"step": 2.0})
    link.stop_job("enough")
    assert [node.read() for _ in range(3)] == [
        ReportLine(values={"step": 1.0}, progress=1),
        ReportLine(values={"step": 2.0}, progress=2),
        StopJobLine(reason="enough"),
    ]


def test_lookups_of_several_threads_get_their_own_answers(
    ends: tuple[ProcessLink, FakeNode],
) -> None:
    link, node = ends
    found: dict[str, str] = {}

    def look(key: str) -> None:
        found[key] = link.lookup(key, 5.0)

    threads = [threading.Thread(target=look, args=(f"key-{i}",)) for i in range(8)]
    for thread in threads:
        thread.start()
    asked = [node.read() for _ in threads]
    for line in reversed(asked):
        assert isinstance(line, LookupLine)
        node.answer(ValueLine(id=line.id, value=line.key.upper()))
    for thread in threads:
        thread.join(5)
    assert found == {f"key-{i}": f"KEY-{i}" for i in range(8)}


def test_a_lookup_that_times_out_names_key_and_setting(
    ends: tuple[ProcessLink, FakeNode],
) -> None:
    link, node = ends
    node.answer(ErrorLine(id=1, message="late", is_timeout=True))
    with pytest.raises(WaitTimeoutError, match=r"'peer'.*`timeouts.collective_timeout_s`"):
        link.lookup("peer", 0.01, setting="timeouts.collective_timeout_s")


def test_a_lookup_that_cannot_work_says_why(ends: tuple[ProcessLink, FakeNode]) -> None:
    link, node = ends
    node.answer(ErrorLine(id=1, message="no master"))
    with pytest.raises(HeadraceError, match="no master"):
        link.lookup("peer", 5.0)


def test_the_end_of_the_node_ends_every_wait(ends: tuple[ProcessLink, FakeNode]) -> None:
    link, node = ends
    node.close()
    with pytest.raises(HeadraceError, match="node of this process has ended"):
        link.lookup("peer", 5.0)


def test_a_fork_may_not_use_the_link_of_its_parent(ends: tuple[ProcessLink, FakeNode]) -> None:
    link, _ = ends
    pid = os.fork()
    if pid == 0:
        try:
            link.publish("key", "value")
        except UsageError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_closing_twice_is_harmless(ends: tuple[ProcessLink, FakeNode]) -> None:
    link, _ = ends
    link.close()
    link.close()


def test_a_process_that_no_node_started_has_no_link() -> None:
    with pytest.raises(UsageError, match="HEADRACE_LINK_FD is not set"):
        ProcessLink.from_environment()


def test_a_value_that_is_not_finite_is_left_out_and_named_once(
    ends: tuple[ProcessLink, FakeNode], caplog: pytest.LogCaptureFixture
) -> None:
    link, node = ends
    for loss in (float("nan"), float("inf"), 0.5):
        link.report({"loss": loss, "rate": 1.0}, 3, 0)
    link.close()
    values = [line.values for line in node.rest() if isinstance(line, ReportLine)]
    assert values == [{"rate": 1.0}, {"rate": 1.0}, {"loss": 0.5, "rate": 1.0}]
    assert [record.getMessage() for record in caplog.records] == [
        "ctx.report: loss=nan is not finite and not shown"
    ]
