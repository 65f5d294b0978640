"""What a node tells its master over a connection that breaks."""

from __future__ import annotations

import asyncio
from typing import Any

from headrace.config import TimeoutConfig
from headrace.errors import HeadraceError
from headrace.framework.clock import SystemClock
from headrace.framework.messages import Beat, Directive, Publish, Register, StopJob
from headrace.framework.node.attendance import Attendance, Delivery
from headrace.framework.rpc.client import MasterClient

from .test_rpc import Served, register, run

WHO: dict[str, Any] = {"node": "worker-0", "instance": "one", "attempt": 1}


class Node:
    """A node that does nothing by itself."""

    def registration(self) -> Register:
        return register()

    def heartbeat(self) -> Beat:
        return Beat(**WHO)

    def on_attempt(self, attempt: int) -> None:
        assert attempt == 1

    def on_directive(self, directive: Directive) -> None:
        pass

    def on_no_contact(self) -> None:
        pass

    def on_master_lost(self, error: HeadraceError) -> None:
        raise error


def test_what_is_told_anew_to_each_connection_waits_once_however_often_it_breaks() -> None:
    async def scenario(it: Served) -> None:
        client = it.client()
        calls: list[str] = []
        attendance = Attendance(Node(), timeouts=TimeoutConfig(), clock=SystemClock())
        attendance.publish(Publish(key="a", value="first", **WHO))
        attendance.deliver(_noted(calls, "other"))
        attendance.publish(Publish(key="b", value="second", **WHO))
        attendance.wish(StopJob(reason="enough", with_savepoint=True, **WHO))
        for _ in range(100):
            await attendance._register(client)  # and it breaks before anything has left
        assert len(attendance._outgoing) == 4

        await _send_all(attendance, client)
        assert calls == ["other"]
        found = [await it.master.rendezvous.lookup(1, key, 1.0) for key in ("a", "b")]
        assert found == ["first", "second"]
        assert it.master.status.savepoint_wish == "worker-0 asked to stop: enough"

        it.master.rendezvous._values.clear()  # as in a master that was started again
        attendance.deliver(_noted(calls, "later"))
        await attendance._register(client)
        assert len(attendance._outgoing) == 4
        sent: list[str | None] = []
        attendance.deliver(_looked_up(it, sent))
        await _send_all(attendance, client)
        assert calls == ["other", "later"]
        assert sent == ["first", "second"]

    run(scenario)


async def _send_all(attendance: Attendance, client: MasterClient) -> None:
    sending = asyncio.create_task(attendance._send_outgoing(client))
    await asyncio.wait_for(attendance._delivered.wait(), 5)
    sending.cancel()
    await asyncio.wait({sending})
    assert not attendance._outgoing


def _noted(calls: list[str], name: str) -> Delivery:
    async def deliver(_: MasterClient) -> None:
        calls.append(name)

    return deliver


def _looked_up(it: Served, found: list[str | None]) -> Delivery:
    async def deliver(_: MasterClient) -> None:
        found.extend([it.master.rendezvous._values.get(key) for key in ("a", "b")])

    return deliver
