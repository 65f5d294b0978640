"""The line from an algorithm process to its node."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import socket
import threading
import time
from collections.abc import Mapping

from headrace._environ import LINK_FD, environment_value
from headrace.errors import HeadraceError, UsageError, WaitTimeoutError
from headrace.framework.failure import Failure
from headrace.framework.link_lines import (
    AheadLine,
    ErrorLine,
    FailedLine,
    FromNode,
    FromProcess,
    LookupLine,
    PublishLine,
    ReportLine,
    StopJobLine,
    decode_from_node,
    encode_line,
)

__all__ = ["ProcessLink"]

_LOG = logging.getLogger(__name__)
_REPORT_EVERY_S = 0.1
_ANSWER_MARGIN_S = 10.0
_RECEIVE_BYTES = 65_536
_PUBLISH_BYTES = 1024 * 1024
_EMPTY_BYTES = len(encode_line(PublishLine(key="", value="")))


class ProcessLink:
    """Client of the node's side of the link: JSON lines over an inherited socket.

    Thread model: safe from any thread of the process that made it; refused in a forked
    child. It has no thread of its own: of several threads that wait for answers, one reads
    for all.
    """

    def __init__(self, node: socket.socket) -> None:
        self._socket = node
        self._pid = os.getpid()
        self._send_lock = threading.Lock()
        self._held: ReportLine | None = None
        self._reports = 0
        self._named_not_finite: set[str] = set()
        self._next_report = 0.0
        self._answered = threading.Condition()
        self._answers: dict[int, FromNode] = {}
        self._abandoned: set[int] = set()
        self._is_reading = False
        self._last_id = 0
        self._buffer = bytearray()

    @classmethod
    def from_environment(cls) -> ProcessLink:
        """Open the link that the node has handed down. Call it once per process.

        Raises:
            UsageError: This process was not started by a node.
        """
        text = environment_value(LINK_FD)
        if text is None:
            msg = f"{LINK_FD} is not set: this process was not started by a Headrace node."
            raise UsageError(msg)
        node = socket.socket(fileno=int(text))
        node.set_inheritable(False)
        return cls(node)

    def report(self, values: Mapping[str, float], rows_in: int = 0, rows_out: int = 0) -> None:
        """Tell the latest values and the rows since the start of the process.

        Does not wait for an answer. Cheap enough for every step: at most ten lines a second
        leave after the first, always with the latest values; one that is held back leaves with
        the next call or `close`. A value that is not finite is left out, with one warning per
        name: JSON has none. Each call is a sign that the process gets on, also with the values
        of before.

        Raises:
            HeadraceError: The node has ended.
        """
        numbers = {name: float(value) for name, value in values.items()}
        finite = {name: value for name, value in numbers.items() if math.isfinite(value)}
        for name in numbers.keys() - finite.keys() - self._named_not_finite:
            self._named_not_finite.add(name)
            _LOG.warning("ctx.report: %s=%s is not finite and not shown", name, numbers[name])
        now = time.monotonic()
        with self._send_lock:
            self._reports += 1
            self._held = ReportLine(
                values=finite, rows_in=rows_in, rows_out=rows_out, progress=self._reports
            )
            if now >= self._next_report:
                if self._reports > 1:  # the first says that the process has begun
                    self._next_report = now + _REPORT_EVERY_S
                self._send_held()

    def publish(self, key: str, value: str) -> None:
        """Make `value` known under `key` to every process of this attempt.

        Does not wait for an answer. A later value replaces an earlier one.

        Raises:
            UsageError: Key and value are longer than 1 MiB together, in JSON and UTF-8: what
                the RPC takes has a limit.
            HeadraceError: The node has ended.
        """
        line = PublishLine(key=key, value=value)
        size_bytes = len(encode_line(line)) - _EMPTY_BYTES
        if size_bytes > _PUBLISH_BYTES:
            msg = (
                f"publish({key[:100]!r}) of {len(value)} characters, {size_bytes} bytes in "
                f"JSON: at most {_PUBLISH_BYTES} may be published. Publish where the data is "
                "instead."
            )
            raise UsageError(msg)
        self._send(line)

    def lookup(
        self, key: str, timeout_s: float, setting: str = "the caller's timeout_s"
    ) -> str:
        """Return the value under `key`; wait until a process of this attempt has published it.

        Args:
            key: What to look for.
            timeout_s: Longest wait, in seconds.
            setting: What bounds the wait, for the error text.

        Raises:
            WaitTimeoutError: Nobody published it in time.
            HeadraceError: The node has ended, or there is no master to ask.
        """
        with self._answered:
            self._last_id += 1
            number = self._last_id
        self._send(LookupLine(id=number, key=key, timeout_s=timeout_s))
        deadline = time.monotonic() + timeout_s + _ANSWER_MARGIN_S
        answer = self._wait_for(number, deadline)
        if answer is None or (isinstance(answer, ErrorLine) and answer.is_timeout):
            raise WaitTimeoutError(
                waited_for=f"the value {key!r} of another process",
                waited_s=timeout_s,
                setting=setting,
                hint="Has the process that publishes it started?",
            )
        if isinstance(answer, ErrorLine):
            msg = f"Lookup of {key!r} failed: {answer.message}"
            raise HeadraceError(msg)
        return answer.value

    def stop_job(self, reason: str, *, with_savepoint: bool = False) -> None:
        """Ask the master to end all roles with success. Does not wait for an answer.

        Args:
            reason: For the status and the log.
            with_savepoint: Whoever waits for the job is to drain it into a savepoint instead.

        Raises:
            HeadraceError: The node has ended.
        """
        self._send(StopJobLine(reason=reason, with_savepoint=with_savepoint))

    def ready(self) -> None:
        """Say that this process, started ahead of its spec, waits for its line.

        Raises:
            HeadraceError: The node has ended.
        """
        self._send(AheadLine(state="ready"))

    def begun(self) -> None:
        """Say that this process, started ahead of its spec, goes on. Raises as `ready`."""
        self._send(AheadLine(state="begun"))

    def failed(self, failure: Failure) -> None:
        """Tell how this process fails; it must exit next.

        Raises:
            HeadraceError: The node has ended.
        """
        self._send(FailedLine(failure=failure))

    def close(self) -> None:
        """Send a report that was held back, and close. Safe to repeat."""
        with self._send_lock:
            if self._socket.fileno() >= 0:
                with contextlib.suppress(HeadraceError):  # no node, nobody to read it
                    self._send_held()
                self._socket.close()

    def _send(self, line: FromProcess) -> None:
        with self._send_lock:
            self._send_held()
            self._send_now(line)

    def _send_held(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            self._send_now(held)

    def _send_now(self, line: FromProcess) -> None:
        if os.getpid() != self._pid:
            msg = (
                "The link to the node belongs to the process that the node has started; "
                f"this is a fork of it (pid {os.getpid()}). Report from the parent."
            )
            raise UsageError(msg)
        try:
            self._socket.sendall(encode_line(line))
        except OSError as exc:
            msg = f"The node of this process has ended ({exc}); the process must end too."
            raise HeadraceError(msg) from exc

    def _wait_for(self, number: int, deadline: float) -> FromNode | None:
        """Return the answer `number`, or None at the deadline."""
        while True:
            with self._answered:
                while number not in self._answers and self._is_reading:
                    if not self._answered.wait(deadline - time.monotonic()):
                        break
                if number in self._answers:
                    return self._answers.pop(number)
                if time.monotonic() >= deadline:
                    self._abandoned.add(number)
                    return None
                self._is_reading = True
            try:
                self._read_some(deadline)
            finally:
                with self._answered:
                    self._is_reading = False
                    self._answered.notify_all()

    def _read_some(self, deadline: float) -> None:
        """Take what the node sends, waiting until `deadline`. One thread at a time."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            return
        try:
            data = self._socket.recv(_RECEIVE_BYTES)
        except OSError:
            data = b""
        if not data:
            msg = "The node of this process has ended; the process must end too."
            raise HeadraceError(msg)
        self._buffer += data
        *lines, rest = self._buffer.split(b"\n")
        self._buffer = rest
        with self._answered:
            for line in lines:
                answer = decode_from_node(bytes(line))
                if answer.id in self._abandoned:
                    self._abandoned.discard(answer.id)
                else:
                    self._answers[answer.id] = answer
