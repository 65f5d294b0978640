"""What each node is to do, as the streams of `Attend` deliver it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

import msgspec

from headrace.framework.messages import Directive

__all__ = ["Directives"]


class Directives:
    """The latest directive of every node.

    Only the latest counts, so nothing queues up and nothing is lost: a stream that is opened
    again begins with it. Thread model: belongs to one asyncio loop.
    """

    def __init__(self) -> None:
        self._latest: dict[str, tuple[int, bytes]] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._number = 0
        self._is_closed = False

    def set(self, nodes: Iterable[str], directive: Directive) -> None:
        """Tell the nodes what to do from now on."""
        data = msgspec.json.encode(directive)
        self._number += 1
        for node in nodes:
            self._latest[node] = (self._number, data)
            if node in self._changed:
                self._changed[node].set()

    def forget(self, node: str) -> None:
        """Drop the node's directive: its process was replaced."""
        self._latest.pop(node, None)

    def close(self) -> None:
        """End every stream."""
        self._is_closed = True
        for changed in self._changed.values():
            changed.set()

    async def follow(self, node: str) -> AsyncIterator[bytes]:
        """Yield the present directive and later ones; ends when a newer stream is opened."""
        changed = asyncio.Event()
        former = self._changed.get(node)
        self._changed[node] = changed
        if former is not None:
            former.set()
        sent = 0
        try:
            while not self._is_closed and self._changed.get(node) is changed:
                changed.clear()
                number, data = self._latest.get(node, (0, b""))
                if number > sent:
                    sent = number
                    yield data
                else:
                    await changed.wait()
        finally:
            if self._changed.get(node) is changed:
                del self._changed[node]
